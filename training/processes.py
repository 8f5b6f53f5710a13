"""Several processes that train one model: what they must do together, and one process alone.

All hold the same weights, averages and optimiser, and each computes its share of a batch. Means
over the processes keep them in step, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn


class Processes(Protocol):
    """This process among those of a run. Every method must be called by all, in one order."""

    index: int  # of this one
    count: int

    @property
    def main(self) -> bool:
        """Whether this is the one that writes files and speaks."""
        ...

    def mean(self, value: Tensor) -> Tensor:
        """Of the processes' values, which have one shape."""
        ...

    def first(self, work: Callable[[], None]) -> None:
        """Do `work` in the main process; the others wait until it is done."""
        ...

    def close(self) -> None:
        """Leave the others, when all are done."""
        ...


class Alone:
    """One process."""

    index, count, main = 0, 1, True

    def mean(self, value: Tensor) -> Tensor:
        """Its own."""
        return value

    def first(self, work: Callable[[], None]) -> None:
        """Do it."""
        work()

    def close(self) -> None:
        """There is nobody."""


ALONE = Alone()
_BUCKET = 1 << 25
"""Numbers that travel together: single gradients are too small, all of them too much memory."""


@torch.no_grad()
def mean_gradients(processes: Processes, parameters: Sequence[nn.Parameter]) -> None:
    """Put the processes' mean in place of each gradient."""
    if processes.count == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    while gradients:
        size = 0
        bucket: list[Tensor] = []
        while gradients and (not bucket or size + gradients[0].numel() <= _BUCKET):
            bucket.append(gradients.pop(0))
            size += bucket[-1].numel()
        mean = processes.mean(torch.cat([gradient.flatten() for gradient in bucket]))
        parts = mean.split([gradient.numel() for gradient in bucket])
        for gradient, part in zip(bucket, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def mean_numbers(
    processes: Processes, said: Mapping[str, float], device: torch.device
) -> dict[str, float]:
    """The processes' means of numbers by name; all have the same names."""
    if processes.count == 1:
        return dict(said)
    mean = processes.mean(torch.tensor(list(said.values()), dtype=torch.float32, device=device))
    return dict(zip(said, mean.tolist(), strict=True))
