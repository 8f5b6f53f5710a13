"""The state of a training run: whole or not there, so that a killed run goes on exactly."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..calibri.atomic_file import write_atomically
from .recipe import TrainingError

STATE = "training.pt"
_SCHEMA = 1


@dataclass
class History:
    """What was measured on the way, for pictures and reports; steps are counted from 1."""

    steps: list[int] = field(default_factory=list)
    losses: dict[str, list[float | None]] = field(default_factory=dict)
    stopping: list[tuple[int, float]] = field(default_factory=list)
    """(step, mean reward of the averaged module on the stopping prompts); step 0 is plain."""
    seconds: float = 0.0

    def add(self, step: int, losses: Mapping[str, float]) -> None:
        """The losses of one step; those it did not have are None."""
        for name in losses:
            self.losses.setdefault(name, [None] * len(self.steps))
        self.steps.append(step)
        for name, values in self.losses.items():
            values.append(losses.get(name))


@dataclass
class TrainingState:
    """All that decides what comes next, after `step` steps are done.

    `average` are the averaged weights, `best` those that the stopping prompts liked best, at
    `best_step`; `plain` are the plain model's mean rewards by prompt.
    """

    step: int
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    best: dict[str, Tensor]
    best_step: int
    best_reward: float
    optimiser: dict[str, Any]
    history: History
    plain: dict[int, float]
    ended: bool = False


class StateFile:
    """`training.pt` in a folder, written by way of a temporary file.

    `about` is everything that makes this run this run (recipe, prompts, model), JSON values; a
    state of another run is refused. `None` as folder keeps nothing.
    """

    def __init__(self, folder: Path | None, about: Mapping[str, Any]) -> None:
        self._path = None if folder is None else folder / STATE
        self._about = json.dumps(about, sort_keys=True)
        self._written = -1

    def read(self, device: torch.device) -> TrainingState | None:
        """The state that lies there, None where there is none.

        Raises TrainingError for a file of another run, of a newer version or that cannot be read.
        """
        if self._path is None or not self._path.exists():
            return None
        try:
            held = torch.load(self._path, map_location=device, weights_only=True)
            about, schema = held["about"], held["schema"]
        except Exception as error:  # whatever unpickling says of a broken file
            raise TrainingError(
                f"The training's state {self._path} cannot be read ({error}): move it away to "
                "begin anew."
            ) from error
        if schema != _SCHEMA or about != self._about:
            raise TrainingError(
                f"The training's state {self._path} is of other settings, another model or another "
                "version: give this run another name, or take the settings back."
            )
        history = History(**{**held["history"], "stopping": list(map(tuple, held["stopping"]))})
        parts = {key: held[key] for key in TrainingState.__dataclass_fields__ if key in held}
        self._written = held["step"]
        return TrainingState(**{**parts, "history": history})

    def write(self, state: TrainingState) -> None:
        """Keep `state`, unless it is the one that lies there."""
        if self._path is None or (self._written == state.step and not state.ended):
            return
        held = {key: getattr(state, key) for key in TrainingState.__dataclass_fields__}
        history = vars(state.history)
        held["history"] = {k: v for k, v in history.items() if k != "stopping"}
        held["stopping"] = [list(point) for point in state.history.stopping]
        data = io.BytesIO()
        torch.save({**held, "about": self._about, "schema": _SCHEMA}, data)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, data.getvalue())
        self._written = state.step


def copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of their own, without gradients."""
    return {key: value.detach().clone() for key, value in weights.items()}


def trained_weights(module: nn.Module) -> dict[str, Tensor]:
    """What training changes: the module's parameters by name."""
    return {key: value for key, value in module.named_parameters() if value.requires_grad}


@torch.no_grad()
def put(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Write `weights` into the module's parameters of these names."""
    own = dict(module.named_parameters())
    for key, value in weights.items():
        own[key].copy_(value)
