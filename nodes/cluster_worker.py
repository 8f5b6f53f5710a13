"""ComfyUI in a worker of a cluster: it starts it in its own process and loads the model once.

Nothing of ComfyUI is imported before it is started, since this is read before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..calibri.configuration import RunConfig
from ..calibri.ensemble_space import EnsembleSpace
from ..calibri.evaluation import Batch, Floats, Sample
from ..calibri.likeness import Surroundings
from ..calibri.settings import RunSettings
from .distant_rewards import DistantReward

if TYPE_CHECKING:
    import numpy as np

    from ..calibri.preset_metadata import Preset
    from .sampling import ComfyEvaluator


@dataclass(frozen=True)
class Folders:
    """Where a worker finds ComfyUI and its folders: as the driver, on the worker's own disk."""

    comfyui: Path
    base: Path | None
    user: Path | None
    output: Path | None

    def start(self, cpu: bool | None) -> None:
        """Start ComfyUI in this process."""
        from .headless import find_comfyui, start_comfyui

        start_comfyui(find_comfyui(self.comfyui), cpu, self.base, self.user, self.output)


@dataclass(frozen=True)
class Told:
    """What a worker says of what it draws, and with what it draws it."""

    config: RunConfig
    space: EnsembleSpace
    record: dict[str, Any]
    base_model: str
    fingerprint: str
    surroundings: Surroundings


@dataclass(frozen=True)
class ComfyFactory:
    """Makes a worker's evaluator. `start` is the preset to begin at, whose file is the driver's;
    `expected` versions are checked before a model is loaded; `rewards` are actors that score in the
    evaluator's place, if there are any."""

    settings: RunSettings
    start: Preset | None
    folders: Folders
    cpu: bool | None
    images_at_once: int | None
    expected: Surroundings
    rewards: tuple[Any, ...] = ()

    def __call__(self) -> tuple[InferenceEvaluator, Told]:
        self.folders.start(self.cpu)
        from .headless import reward_named
        from .headless_run import prepare_settings
        from .surroundings import refusal, surroundings

        if words := refusal(self.expected):
            raise ValueError(words)

        def distant(name: str) -> Any:
            return DistantReward(reward_named(name), name, self.rewards)

        prepared = prepare_settings(
            self.settings,
            distant if self.rewards else None,
            self.images_at_once,
            self.start,
        )
        told = Told(
            prepared.config,
            prepared.space,
            prepared.settings,
            prepared.base_model,
            prepared.fingerprint,
            surroundings(),
        )
        return InferenceEvaluator(prepared.evaluator), told


class InferenceEvaluator:
    """A `ComfyEvaluator` outside of a node, which ComfyUI would run without gradients."""

    def __init__(self, evaluator: ComfyEvaluator) -> None:
        self._evaluator = evaluator

    def plan(self, candidates: int, bucket: Sequence[Sample]) -> list[Batch]:
        return self._without_gradients(lambda: self._evaluator.plan(candidates, bucket))

    def run(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample]) -> Floats:
        return self._without_gradients(lambda: self._evaluator.run(batch, vectors, bucket))

    def judge(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample], judge: str) -> Floats:
        return self._without_gradients(lambda: self._evaluator.judge(batch, vectors, bucket, judge))

    def images(self, vectors: Floats, bucket: Sequence[Sample]) -> np.ndarray:
        return self._without_gradients(lambda: self._evaluator.images(vectors, bucket))

    def _without_gradients(self, make: Callable[[], Any]) -> Any:
        import torch

        with torch.inference_mode():
            return make()
