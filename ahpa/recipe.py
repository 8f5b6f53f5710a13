"""How a model is trained with AHPA: every number that decides what comes out, as a record."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..training.loop import Pace
from ..training.schedule import LearningRate
from ..training.state import TrainingError
from .loss import Schedule

LOGIT_NORMAL, UNIFORM = "logit-normal", "uniform"
TIMES = (LOGIT_NORMAL, UNIFORM)
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Recipe:
    """Learning rate, clip and block are those of the README of the paper's repository."""

    steps: int = 1000
    batch: int = 4
    accumulate: int = 1
    learning_rate: float = 2e-4
    warm_up: int = 20
    decay_from: float = 1.0
    weight_decay: float = 0.0
    clip: float = 2.0
    ema: float = 0.999
    method: str = "ahpa"  # see methods.py
    block: int = 0  # counted from 1; 0 is a quarter of the depth
    later_block: int = 0  # of self-representation alignment; 0 is two thirds of the depth
    weight: float = 0.5  # λ
    weight_hold: int = 0  # λ falls along half a cosine from this step on
    weight_off: int = 0  # and is 0 from this step on; 0 keeps λ
    # Of the router, which learns little at the DiT's rate. At 1e-2 its softmax saturates within a
    # few steps, and from 1e-3 on weights hardly leave where they began: both were seen.
    router_rate: float = 3e-3
    projector_rate: float = 1e-3
    entropy: float = 0.05  # η
    entropy_off: int = 0  # η falls along half a cosine to 0 at this step; 0 keeps it
    levels: str = "middle, deep"
    width: int = 64  # of the whitened features
    times: str = LOGIT_NORMAL
    empty_prompts: float = 0.1
    precision: str = "float32"
    save_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "width", "save_every"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} is {getattr(self, name)}: give at least 1.")
        for name in ("learning_rate", "router_rate", "projector_rate"):
            if not getattr(self, name) > 0:
                raise TrainingError(f"{name} is {getattr(self, name)}: give a number above 0.")
        if self.times not in TIMES or self.precision not in PRECISIONS:
            raise TrainingError(
                f"times is {self.times!r} and precision {self.precision!r}: give one of "
                f"{', '.join(TIMES)} and one of {', '.join(PRECISIONS)}."
            )
        if not 0 <= self.empty_prompts <= 1:
            raise TrainingError(f"empty_prompts is {self.empty_prompts}: give a share from 0 to 1.")

    @property
    def pace(self) -> Pace:
        """As the loop takes it."""
        return Pace(
            steps=self.steps,
            accumulate=self.accumulate,
            clip=self.clip,
            ema=self.ema,
            save_every=self.save_every,
        )

    @property
    def weight_schedule(self) -> Schedule:
        """λ over the steps."""
        return Schedule(self.weight, self.weight_hold, self.weight_off or None)

    @property
    def entropy_schedule(self) -> Schedule:
        """η over the steps."""
        return Schedule(self.entropy, 0, self.entropy_off or None)

    def rate(self, peak: float) -> LearningRate:
        """The course of a learning rate: all have the same shape."""
        return LearningRate(peak, self.steps, self.warm_up, self.decay_from)

    def record(self) -> dict[str, Any]:
        """As JSON, for the state and for reports."""
        return asdict(self)
