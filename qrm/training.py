"""Training a QRM on a frozen model with rewards that have a gradient.

The data of step n depend on (seed, n) alone and the state is kept as a whole, so a run that was
killed goes on from its last state to the bits of one that was not (equal shapes, device type and
versions). `code_search.py` has rewards without a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..calibri.evaluation import samples, training_bucket
from ..training import loop
from ..training.loop import Group, Loop
from ..training.state import StateFile, TrainingError
from ..training.weights import copied, instead, learnt, put
from .losses import Difficulty, Latents, NoGradientError, Subject, batch_losses, weighted
from .measuring import plain_rewards, stopping_reward
from .recipe import Recipe
from .trainee import Score, Trainee

Watch = Callable[[int, Mapping[str, float], float], None]
"""Hears of each finished step, counted from 1: its losses, and the stopping prompts' last mean.
What it raises ends the run, which can go on."""


@dataclass(frozen=True)
class Split:
    """Rows of `Trainee.prompts`: those trained on, and those that decide when to stop.

    No judge's prompt is in either.
    """

    train: tuple[int, ...]
    stopping: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.train or len(self.stopping) < 2:
            raise TrainingError(
                f"There are {len(self.train)} prompts to train on and {len(self.stopping)} to stop "
                "by: give at least one and two."
            )


@dataclass
class History(loop.History):
    """The losses of each step, and what the stopping prompts said.

    `stopping`: (step, mean reward of the averaged module); step 0 is the plain model.
    """

    stopping: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Trained:
    """What a training came to; the module holds the weights of `best_step`, 0 being plain."""

    best_step: int
    best_reward: float
    plain_reward: float
    history: History
    difficulty: Difficulty


@dataclass
class _Course:
    """What is kept beside the loop's own: the plain model's mean rewards by prompt, `stopping` as
    in `History`, and the averaged weights that the stopping prompts liked best."""

    plain: dict[int, float] = field(default_factory=dict)
    stopping: list[tuple[int, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_step: int = 0
    best_reward: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def add(self, step: int, reward: float, weights: Mapping[str, Tensor]) -> None:
        if not self.stopping or reward > self.best_reward:
            self.best, self.best_step, self.best_reward = copied(weights), step, reward
        self.stopping.append((step, reward))

    def has_ended(self, patience: int) -> bool:
        since = sum(1 for step, _ in self.stopping if step > self.best_step)
        return bool(patience) and since >= patience


def train(
    trainee: Trainee,
    module: nn.Module,
    score: Score,
    recipe: Recipe,
    split: Split,
    *,
    latents: Latents | None = None,
    plain: Mapping[int, float] | None = None,
    folder: Path | None = None,
    about: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
) -> Trained:
    """Train `module` in place, or go on with the run in `folder`; it ends with the best weights.

    `plain` are the plain model's mean rewards by training prompt where they are known. `about` is
    what else tells this run from others, JSON values. Raises TrainingError for a loss that is no
    number, naming the step, with the last good state kept; whatever is raised on the way leaves a
    state to go on from.
    """
    if recipe.losses.flow > 0 and latents is None:
        raise TrainingError(
            "The flow matching loss has a weight but there are no latents of pictures: connect "
            "some, or set its weight to 0."
        )
    told = {**(about or {}), "recipe": recipe.record(), "train": len(split.train)}
    weights, course = learnt(module), _Course()
    group = Group("module", weights, recipe.rate, recipe.weight_decay, averaged=True)
    run = Loop(recipe.pace, [group], StateFile(folder, told), trainee.device, also=course)
    with torch.no_grad(), autocast(recipe, trainee):
        if not course.stopping:
            course.plain = _difficulties(trainee, score, recipe, split, plain)
            course.add(0, stopping_reward(trainee, None, score, split.stopping, recipe), weights)
    difficulty = Difficulty.of(course.plain)
    subject = Subject(trainee, score, recipe, latents, difficulty)

    def measure(run: Loop) -> bool:
        due = run.step % recipe.validate_every == 0 or run.step == recipe.steps
        if due and course.stopping[-1][0] != run.step:
            average = run.average_of("module")
            with torch.no_grad(), autocast(recipe, trainee), instead(weights, average):
                reward = stopping_reward(trainee, module, score, split.stopping, recipe)
            course.add(run.step, reward, average)
        return course.has_ended(recipe.patience)

    def tell(run: Loop) -> None:
        if watch is not None:
            watch(run.step, run.history.last(), course.stopping[-1][1])

    run.run(lambda step, part: _losses(subject, module, split, step, part), tell, measure)
    put(course.best, weights)
    history = History(run.history.values, run.history.steps, course.stopping)
    plain_reward = course.stopping[0][1]
    return Trained(course.best_step, course.best_reward, plain_reward, history, difficulty)


def _difficulties(
    trainee: Trainee,
    score: Score,
    recipe: Recipe,
    split: Split,
    plain: Mapping[int, float] | None,
) -> dict[int, float]:
    """The plain model's mean reward by prompt; 0 where no loss asks for it."""
    known = {row: float(value) for row, value in (plain or {}).items()}
    missing = [row for row in split.train if row not in known]
    if recipe.losses.difficulty > 0 and missing:
        known |= plain_rewards(trainee, score, missing, recipe)
    return known or dict.fromkeys(split.train, 0.0)


def _losses(
    subject: Subject, module: nn.Module, split: Split, step: int, part: int
) -> tuple[Tensor, dict[str, float]]:
    """The loss of one part of a step, and each of its summands."""
    recipe = subject.recipe
    size = recipe.batch * recipe.accumulate
    drawn = training_bucket(recipe.seed, step + 1, len(split.train), size)
    bucket = samples(recipe.seed, "qrm", step, [split.train[one.prompt] for one in drawn])
    rows = bucket[part * recipe.batch : (part + 1) * recipe.batch]
    try:
        with autocast(recipe, subject.trainee):
            losses = batch_losses(subject, module, step, part, rows)
    except NoGradientError:
        raise TrainingError(
            "The reward says that it is differentiable, but no gradient comes back from it: "
            "use its search training, or another reward."
        ) from None
    return weighted(losses, recipe), {name: value.item() for name, value in losses.items()}


def autocast(recipe: Recipe, trainee: Trainee) -> torch.autocast:
    """bfloat16 where the recipe asks for it.

    Without autocast's cache: what it keeps under `no_grad` would carry no gradient afterwards.
    """
    return torch.autocast(
        trainee.device.type,
        torch.bfloat16,
        enabled=recipe.precision == "bfloat16",
        cache_enabled=False,
    )


def split_of(train: Sequence[str], stopping: Sequence[str]) -> tuple[tuple[str, ...], Split]:
    """All prompts, those to train on first, and which are which.

    Raises TrainingError for a prompt that is in both: nothing could be told by it.
    """
    both = sorted(set(train) & set(stopping))
    if both:
        raise TrainingError(
            f"The prompt {both[0]!r} is among those to train on and those held out: give each "
            "prompt one role."
        )
    rows = range(len(train) + len(stopping))
    parts = Split(tuple(rows[: len(train)]), tuple(rows[len(train) :]))
    return (*train, *stopping), parts
