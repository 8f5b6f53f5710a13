"""A LoRA on a MODEL as AHPA's training sees it (`ahpa/subject.py`)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..ahpa.hidden import read_blocks
from ..training.lora import Lora, linear_layers
from .conditioning import Conditioning, signature, stack

if TYPE_CHECKING:
    from .frozen_copy import FrozenCopy

PREFIX = "diffusion_model."


class LoraSubject:
    """Satisfies `ahpa.subject.Subject`; the last of `captions` is the empty prompt."""

    def __init__(
        self,
        copy: FrozenCopy,
        latents: torch.Tensor,
        captions: Sequence[Conditioning],
        rank: int,
        seed: int,
        look_up: Callable[[], None],
    ) -> None:
        self.model: nn.Module = copy.diffusion_model
        self.latents, self.device = latents, copy.device
        self.grid = token_grid(self.model, latents)
        self.look_up = look_up
        self._copy, self._captions = copy, captions
        self._signatures: list[Hashable] = [signature(caption) for caption in captions]
        blocks = [block.module for block in read_blocks(self.model)]
        self.lora = Lora(self.model, linear_layers(self.model, blocks), rank, float(rank), seed)
        self.lora.to(copy.device)
        self.parameters: Mapping[str, nn.Parameter] = self.lora.parameters

    def velocity(
        self, x: torch.Tensor, t: torch.Tensor, rows: torch.Tensor, empty: torch.Tensor
    ) -> torch.Tensor:
        """Of the model with the LoRA, where `lora` is acting.

        Around the backward pass too: checkpointed blocks are computed again there.
        """
        prompts = stack([self._captions[i] for i in self._numbers(rows, empty)], self.device)
        return self._copy.velocity(x, t, prompts)

    def groups(self, rows: torch.Tensor, empty: torch.Tensor) -> Sequence[torch.Tensor]:
        """Captions of one shape share a call."""
        alike: dict[Hashable, list[int]] = {}
        for place, number in enumerate(self._numbers(rows, empty)):
            alike.setdefault(self._signatures[number], []).append(place)
        return [torch.tensor(places) for places in alike.values()]

    def tensors(self, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The LoRA's file, in bfloat16: its names are those of ComfyUI's own trainer."""
        held = self.lora.tensors(weights, PREFIX)
        return {
            name: value if name.endswith(".alpha") else value.to(torch.bfloat16)
            for name, value in held.items()
        }

    def _numbers(self, rows: torch.Tensor, empty: torch.Tensor) -> list[int]:
        last = len(self._captions) - 1
        return [
            last if left_out else row
            for row, left_out in zip(rows.tolist(), empty.tolist(), strict=True)
        ]


def token_grid(model: nn.Module, latents: torch.Tensor) -> tuple[int, int]:
    """Rows and columns of the picture's tokens. Raises ValueError where the crop cuts a patch."""
    size = getattr(model, "patch_size", None)
    patch = int(size[-1] if isinstance(size, (tuple, list)) else size or 1)
    rows, columns = latents.shape[-2:]
    if rows % patch or columns % patch:
        raise ValueError(
            f"The crop makes latents of {rows} x {columns}, which the model's patches of {patch} x "
            f"{patch} do not divide: choose a size that is a multiple of 32."
        )
    return rows // patch, columns // patch
