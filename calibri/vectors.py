"""Changes of single channels of what tapped modules compute, one set per sample: QRM's vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Vectors:
    """A module's output becomes `output * (1 + scale) + add`, chunk by chunk.

    Both map a module's path below the diffusion model to float32 [B, chunks, H]: B is 1 or the
    samples of a call, H the width of a chunk. A module whose whole output is scaled has one chunk
    and no entry in `add`.
    """

    add: Mapping[str, Tensor] = field(default_factory=dict)
    scale: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def paths(self) -> list[str]:
        """The modules that something happens to."""
        return list(dict.fromkeys((*self.scale, *self.add)))

    def __add__(self, other: Vectors) -> Vectors:
        """Both at once: their changes add up."""
        return Vectors(_sum(self.add, other.add), _sum(self.scale, other.scale))

    def __mul__(self, strength: float | Tensor) -> Vectors:
        """All changes `strength` times as large; a tensor [B, 1, 1] has one for each sample."""
        return self._each(lambda vector: vector * strength)

    def rows(self, index: Tensor) -> Vectors:
        """Those of the samples `index`, in that order."""
        return self._each(lambda vector: vector.index_select(0, index))

    def chunk(self, parts: int) -> list[Vectors]:
        """Those of each of so many equal parts of the samples."""
        size = max((len(v) for v in (*self.add.values(), *self.scale.values())), default=0) // parts

        def part(first: int) -> Vectors:
            return self._each(lambda vector: vector[first : first + size])

        return [part(at * size) for at in range(parts)]

    @staticmethod
    def cat(parts: Sequence[Vectors | None]) -> Vectors:
        """Those of some samples after those of others, all of the same modules. None: as many
        samples as the others, which nothing happens to. Raises ValueError for Nones alone.
        """
        first = next((part for part in parts if part is not None), None)
        if first is None:
            raise ValueError("There are no vectors to join: pass those of some samples at least.")
        if len(parts) == 1:
            return first
        nothing = first._each(torch.zeros_like)
        each = [part or nothing for part in parts]
        return Vectors(
            {path: torch.cat([part.add[path] for part in each]) for path in first.add},
            {path: torch.cat([part.scale[path] for part in each]) for path in first.scale},
        )

    def _each(self, change: Callable[[Tensor], Tensor]) -> Vectors:
        return Vectors(
            {path: change(vector) for path, vector in self.add.items()},
            {path: change(vector) for path, vector in self.scale.items()},
        )


def _sum(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    both = dict(first)
    for path, vector in second.items():
        both[path] = both[path] + vector if path in both else vector
    return both
