"""How a QRM is trained: every number that decides what comes out, as one JSON-able record."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from ..training.loop import Pace
from ..training.state import TrainingError

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class LossWeights:
    """What each loss counts; 0 leaves it out (`losses.py` says what each is).

    `late` and `last` both need a decoded picture: where both count, steps take turns.
    """

    flow: float = 0.0
    late: float = 1.0
    last: float = 1.0
    difficulty: float = 0.1
    size: float = 0.01

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not math.isfinite(value) or value < 0:
                raise TrainingError(
                    f"The weight of the loss {name!r} is {value}: give a number from 0 on."
                )
        if self.flow + self.late + self.last == 0:
            raise TrainingError(
                "No loss changes the pictures: give flow, late or last a weight above 0."
            )

    @property
    def rewards(self) -> bool:
        """Whether some loss needs a reward with a gradient."""
        return self.late > 0 or self.last > 0


@dataclass(frozen=True)
class Recipe:
    """One training. The data of step n depend on `seed` and n alone.

    `batch` pictures run at once, `accumulate` times for each step of the optimiser. `outlier` is
    how many times the median a picture's gradient may count (`losses.without_outliers`).
    `backward_steps` is k, the last sampling steps that gradients go through; `late_share` is the
    share of the schedule, from its end, whose one-step predictions are scored. Every
    `validate_every` steps the averaged module draws the stopping prompts; after `patience` of these
    without a better mean, training ends; 0 never ends early. The state is written every
    `save_every` steps.
    """

    steps: int = 400
    batch: int = 4
    accumulate: int = 1
    learning_rate: float = 1e-3
    warm_up: int = 20
    weight_decay: float = 0.01
    gradient_limit: float = 1.0
    outlier: float = 2.0
    ema: float = 0.98
    backward_steps: int = 1
    late_share: float = 0.5
    plain_images: int = 2
    stopping_images: int = 1
    validate_every: int = 25
    patience: int = 4
    save_every: int = 25
    checkpointing: bool = True
    precision: str = "bfloat16"
    seed: int = 0
    losses: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        counts = ("steps", "batch", "accumulate", "backward_steps", "plain_images")
        for name in (*counts, "stopping_images", "validate_every", "save_every"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} is {getattr(self, name)}: give at least 1.")
        if not 0 < self.learning_rate < math.inf:
            raise TrainingError(
                f"The learning rate is {self.learning_rate}: give a number above 0."
            )
        if not 0 < self.late_share <= 1 or not 0 <= self.ema < 1:
            raise TrainingError(
                f"late_share is {self.late_share} and ema is {self.ema}: the first lies above 0 "
                "and up to 1, the second from 0 up to below 1."
            )
        if self.precision not in PRECISIONS:
            raise TrainingError(
                f"The precision {self.precision!r} does not exist: choose one of "
                f"{', '.join(PRECISIONS)}."
            )

    @property
    def pace(self) -> Pace:
        """As the loop takes it."""
        return Pace(
            steps=self.steps,
            accumulate=self.accumulate,
            clip=self.gradient_limit,
            ema=self.ema,
            betas=(0.9, 0.98),
            save_every=self.save_every,
        )

    def rate(self, step: int) -> float:
        """The learning rate of `step`, from 0 on: warm-up, then half a cosine to a tenth."""
        if step < self.warm_up:
            return self.learning_rate * (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.learning_rate * (0.55 + 0.45 * math.cos(math.pi * min(1.0, done)))

    def record(self) -> dict[str, Any]:
        """As JSON, for the state, the file's training record and reports."""
        return asdict(self)
