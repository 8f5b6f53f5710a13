"""What a trained router weighs at which noise level: the numbers of the paper's Figure 5.

What the levels themselves hold is in `group_pictures.py` (Figure 4), and how much of them can be
read from a model's tokens in `probe.py`; `figure_inspection.py` draws all three.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .levels import Level
from .router import entropy
from .router_file import TrainedRouter

TIMES = 51


@dataclass(frozen=True)
class Weighing:
    """A router's weights [T, L] of its levels at `times` [T], from 0 (the picture) to 1 (noise)."""

    method: str
    levels: tuple[Level, ...]
    times: Tensor
    weights: Tensor

    @property
    def groups(self) -> tuple[str, ...]:
        """Of the levels, in their order."""
        return tuple(dict.fromkeys(level.group for level in self.levels))

    def places(self, group: str) -> list[int]:
        """Numbers of the group's levels."""
        return [i for i, level in enumerate(self.levels) if level.group == group]

    def beta(self, group: str) -> Tensor:
        """The group's share of all, [T]."""
        return self.weights[:, self.places(group)].sum(dim=-1)

    def alpha(self, group: str) -> Tensor:
        """Each level's share of its group, [T, levels of the group]."""
        return self.weights[:, self.places(group)] / self.beta(group).clamp_min(1e-12)[:, None]

    @property
    def entropy(self) -> Tensor:
        """Of all weights at each time, in nats, [T]; log L where all levels are alike."""
        return entropy(self.weights)

    @property
    def variation(self) -> float:
        """How much the time decides, in nats: entropy of the mean weights less the mean entropy.

        0 where the weights are the same at all times, at most log L.
        """
        return max(0.0, float(entropy(self.weights.mean(dim=0)) - self.entropy.mean()))

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "method": self.method,
            "levels": [{"name": level.module, "group": level.group} for level in self.levels],
            "t": rounded(self.times),
            "beta": {group: rounded(self.beta(group)) for group in self.groups},
            "alpha": {
                self.levels[place].module: rounded(share)
                for group in self.groups
                for place, share in zip(self.places(group), self.alpha(group).T, strict=True)
            },
            "entropy": rounded(self.entropy),
            "variation": round(self.variation, 5),
        }

    def words(self) -> str:
        """Where the groups' shares go, in two sentences."""
        ends = [
            ", ".join(f"{group} {float(self.beta(group)[at]):.0%}" for group in self.groups)
            for at in (-1, 0)
        ]
        return (
            f"At full noise (t = 1): {ends[0]}; at none (t = 0): {ends[1]}. The noise level "
            f"decides {self.variation:.3f} nats of the weights; 0 is a mix that never changes."
        )


@torch.no_grad()
def weighing(trained: TrainedRouter, count: int = TIMES) -> Weighing:
    """Ask a router at `count` times. One that looks at content too is shown none."""
    times = torch.linspace(0, 1, count)
    weights = trained.router(times, torch.zeros(count, 1, trained.hidden)).float()
    return Weighing(trained.method, trained.levels, times, weights)


def rounded(values: Tensor) -> list[Any]:
    """As JSON, to five digits behind the point."""
    found: list[Any] = [round(value, 5) for value in values.tolist()]
    return found
