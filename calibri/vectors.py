"""Changes of single channels of what tapped modules compute, one set per sample: QRM's vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
        return Vectors(
            {path: vector * strength for path, vector in self.add.items()},
            {path: vector * strength for path, vector in self.scale.items()},
        )

    def rows(self, index: Tensor) -> Vectors:
        """Those of the samples `index`, in that order."""
        return Vectors(
            {path: vector.index_select(0, index) for path, vector in self.add.items()},
            {path: vector.index_select(0, index) for path, vector in self.scale.items()},
        )


def _sum(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    both = dict(first)
    for path, vector in second.items():
        both[path] = both[path] + vector if path in both else vector
    return both
