"""Learning rates over a run."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class LearningRate:
    """Linear warm-up, constant, then half a cosine from `decay_from` (a share of the run) on.

    It ends at `floor` times `peak`; `decay_from` 1 keeps it constant.
    """

    peak: float
    steps: int
    warm_up: int = 0
    decay_from: float = 1.0
    floor: float = 0.1

    def at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        if step < self.warm_up:
            return self.peak * (step + 1) / self.warm_up
        first = max(self.warm_up, self.decay_from * self.steps)
        if step < first or first >= self.steps:
            return self.peak
        done = min(1.0, (step - first) / (self.steps - first))
        low = self.floor * self.peak
        return low + (self.peak - low) * 0.5 * (1 + math.cos(math.pi * done))
