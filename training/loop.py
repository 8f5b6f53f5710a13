"""The loop of a training: accumulation, clipping, averages, a state to go on from.

What is learnt is the caller's: it gives the loss of a part of a step, which must depend on the
step's number and the weights alone. Then a run that was killed goes on from its last state to the
bits of one that was not (equal shapes, device type and versions).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .processes import ALONE, Processes, mean_gradients, mean_numbers
from .state import StateFile, TrainingError
from .weights import average, copied, put

Parts = Callable[[int, int], tuple[Tensor, Mapping[str, float]]]
"""(step, part) → the part's loss [] and what to write down of it; both are counted from 0."""


class DivergedError(TrainingError):
    """A loss or gradient that is no number."""


@dataclass(frozen=True)
class Group:
    """Parameters that are trained alike; `averaged` ones have a moving average."""

    name: str
    parameters: Mapping[str, nn.Parameter]
    rate: Callable[[int], float]  # of a step, counted from 0
    weight_decay: float = 0.0
    averaged: bool = False


@dataclass(frozen=True)
class Pace:
    """How far a run goes and how."""

    steps: int
    accumulate: int = 1
    clip: float = 2.0  # of the gradient's length; 0 does not clip
    ema: float = 0.999
    betas: tuple[float, float] = (0.9, 0.99)
    save_every: int = 100

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "save_every"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} is {getattr(self, name)}: give at least 1.")
        if not 0 <= self.ema < 1:
            raise TrainingError(f"ema is {self.ema}: give a number from 0 up to below 1.")


@dataclass
class History:
    """What was written down of each step done; lists are as long as there are steps."""

    values: dict[str, list[float | None]] = field(default_factory=dict)
    steps: int = 0

    def last_means(self) -> dict[str, float]:
        """Each series' mean over its last tenth; those without a number there are left out."""
        found = {}
        for name, series in self.values.items():
            known = [value for value in series[-max(1, len(series) // 10) :] if value is not None]
            if known:
                found[name] = sum(known) / len(known)
        return found

    def add(self, values: Mapping[str, float]) -> None:
        """Those of the next step; what it does not have is None."""
        for name in values:
            self.values.setdefault(name, [None] * self.steps)
        self.steps += 1
        for name, held in self.values.items():
            held.append(values.get(name))

    def last(self) -> dict[str, float]:
        """Those of the last step."""
        return {name: held[-1] for name, held in self.values.items() if held[-1] is not None}


class Stateful(Protocol):
    """What a caller keeps besides: numbers, words and tensors, in lists and dicts."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Loop:
    """Trains groups of parameters in place with AdamW, `buffers` being what the losses change.

    What `also` holds is a part of the state.
    """

    def __init__(
        self,
        pace: Pace,
        groups: Sequence[Group],
        file: StateFile,
        device: torch.device,
        buffers: Mapping[str, Tensor] | None = None,
        also: Stateful | None = None,
        processes: Processes = ALONE,
    ) -> None:
        """Goes on from the file's state. Raises TrainingError as reading it does."""
        self.pace, self.history, self.step = pace, History(), 0
        self._processes, self._device = processes, device
        self._groups, self._file, self._buffers = groups, file, dict(buffers or {})
        self._also = also
        self._weights = {f"{g.name}.{n}": p for g in groups for n, p in g.parameters.items()}
        averaged = [g.name for g in groups if g.averaged]
        self._averaged = {n: p for n, p in self._weights.items() if n.split(".")[0] in averaged}
        self._average = copied(self._averaged)
        self._written = -1
        self._optimiser = torch.optim.AdamW(
            [
                {"params": list(g.parameters.values()), "weight_decay": g.weight_decay}
                for g in groups
                if g.parameters
            ],
            betas=pace.betas,
        )
        state = file.read(device)
        if state is not None:
            self._take(state)
        if processes.count > 1:
            step = float(self.step)
            if float(processes.mean(torch.tensor(step, device=device))) != step:
                raise TrainingError(
                    "The processes see different states of this run: keep its folder on a disk "
                    "that all machines share."
                )

    def average_of(self, group: str) -> dict[str, Tensor]:
        """The averaged weights of a group, by its parameters' names; they move with the run."""
        first = f"{group}."
        return {n[len(first) :]: v for n, v in self._average.items() if n.startswith(first)}

    def run(
        self,
        parts: Parts,
        watch: Callable[[Loop], None] = lambda loop: None,
        measure: Callable[[Loop], bool] = lambda loop: False,
    ) -> None:
        """Train to the end. `watch` is called after each step; what it raises ends the run.

        `measure` is called before the first step and after each, before its state is kept; where it
        says true, the run ends early. Where a run was stopped in it, it is called again.

        Whatever is raised leaves a state to go on from. Raises DivergedError for a loss or gradient
        that is no number, naming the step, and TrainingError where the state cannot be kept.
        """
        said: dict[str, float] | None = None
        while True:
            try:
                ended = measure(self) or self.step >= self.pace.steps
                if ended or self.step % self.pace.save_every == 0:
                    self.keep()
                if said is not None:
                    watch(self)
                if ended:
                    return
                said = self._advance(parts)
            except BaseException:
                self.keep()  # Cancel loses nothing
                raise
            self.step += 1
            average(self._average, self._averaged, self.pace.ema, self.step)
            self.history.add(said)

    def keep(self) -> None:
        """Write the state, unless it is the one that was written last, or another process does."""
        if self._written == self.step or not self._processes.main:
            return
        self._file.write(
            {
                "step": self.step,
                "weights": {name: value.detach() for name, value in self._weights.items()},
                "average": self._average,
                "buffers": self._buffers,
                "optimiser": self._optimiser.state_dict(),
                "history": self.history.values,
                "also": {} if self._also is None else self._also.state_dict(),
            }
        )
        self._written = self.step

    def _take(self, state: Mapping[str, Any]) -> None:
        put(state["weights"], self._weights)
        put(state["average"], self._average)
        put(state["buffers"], self._buffers)
        self._optimiser.load_state_dict(state["optimiser"])
        self.step = self._written = int(state["step"])
        self.history = History(dict(state["history"]), self.step)
        if self._also is not None:
            self._also.load_state_dict(state["also"])

    def _advance(self, parts: Parts) -> dict[str, float]:
        """A step, or none where something is raised; what was written down of it."""
        before = copied(self._buffers)
        try:
            return self._learn(parts)
        except BaseException:
            put(before, self._buffers)
            raise

    def _learn(self, parts: Parts) -> dict[str, float]:
        used = [group for group in self._groups if group.parameters]
        for group, options in zip(used, self._optimiser.param_groups, strict=True):
            options["lr"] = group.rate(self.step)
        self._optimiser.zero_grad(set_to_none=True)
        said: dict[str, float] = {}
        count = self.pace.accumulate
        for part in range(count):
            loss, values = parts(self.step, part)
            wrong = " and ".join(name for name, v in values.items() if not math.isfinite(v))
            # Of all processes: one that stopped by itself would leave the others waiting.
            mean = float(self._processes.mean(loss.detach()))
            self._check(mean, f"loss {wrong}".strip())
            (loss / count).backward()
            for name, value in values.items():
                said[name] = said.get(name, 0.0) + value / count
        mean_gradients(self._processes, list(self._weights.values()))
        limit = self.pace.clip or math.inf
        norm = nn.utils.clip_grad_norm_(list(self._weights.values()), limit)
        self._check(float(norm), "gradient")
        self._optimiser.step()
        return mean_numbers(self._processes, said, self._device)

    def _check(self, value: float, name: str) -> None:
        if not math.isfinite(value):
            raise DivergedError(
                f"The {name} of step {self.step + 1} is no finite number: the state after step "
                f"{self.step} is kept; give a lower learning rate, or float32, and a new name."
            )
