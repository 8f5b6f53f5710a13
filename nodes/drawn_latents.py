"""Latents of batches that were drawn lately, so that judges need not draw them again.

A batch drawn again in the same shape has the same bits (docs/journal.md), so a run that finds
nothing here, after a restart for instance, finds the same values and takes longer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ..calibri.evaluation import Batch, Floats, Sample

_MOST_BYTES = 256 * 2**20

_Key = tuple[object, ...]


class DrawnLatents:
    """The last batches' latents in main memory, at most 256 MiB of them."""

    def __init__(self, most: int = _MOST_BYTES) -> None:
        self._most = most
        self._kept: OrderedDict[_Key, tuple[torch.Tensor, torch.device]] = OrderedDict()

    def of(
        self,
        batch: Batch,
        vectors: Floats,
        bucket: Sequence[Sample],
        draw: Callable[[], torch.Tensor],
    ) -> torch.Tensor:
        """What `draw` gave for this batch of these vectors and samples, or gives now."""
        key = tuple((vectors[candidate].tobytes(), bucket[place]) for candidate, place in batch)
        if key in self._kept:
            self._kept.move_to_end(key)
            latents, device = self._kept[key]
            return latents.to(device, copy=True)
        drawn = draw()
        self._kept[key] = drawn.to("cpu", copy=True), drawn.device
        while sum(latents.nbytes for latents, _ in self._kept.values()) > self._most:
            self._kept.popitem(last=False)
        return drawn
