"""Training a QRM on a frozen model with rewards that have a gradient.

The data of step n depend on (seed, n) alone and the state is kept as a whole, so a run that was
killed goes on from its last state to the bits of one that was not (equal shapes, device type and
versions). `code_search.py` has rewards without a gradient.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..calibri.evaluation import samples, training_bucket
from .losses import Difficulty, Latents, NoGradientError, Subject, batch_losses, weighted
from .measuring import plain_rewards, stopping_reward
from .recipe import Recipe, TrainingError
from .trainee import Score, Trainee
from .training_state import History, StateFile, TrainingState, copied, put, trained_weights

Watch = Callable[[TrainingState, Mapping[str, float]], None]
"""Hears of each finished step and its losses; what it raises ends the run, which can go on."""


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


@dataclass(frozen=True)
class Trained:
    """What a training came to; the module holds the weights of `best_step`, 0 being plain."""

    best_step: int
    best_reward: float
    plain_reward: float
    history: History
    difficulty: Difficulty


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
    file = StateFile(folder, told)
    optimiser = torch.optim.AdamW(
        [p for p in module.parameters() if p.requires_grad],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=recipe.weight_decay,
    )
    state = file.read(trainee.device)
    if state is None:
        state = _begin(trainee, module, score, recipe, split, plain)
    else:
        put(module, state.weights)
        if state.optimiser:
            optimiser.load_state_dict(state.optimiser)
    difficulty = Difficulty.of(state.plain)
    subject = Subject(trainee, score, recipe, latents, difficulty)
    said: dict[str, float] | None = None
    try:
        while True:
            if _is_due(recipe, state):
                with autocast(recipe, trainee):
                    _validate(trainee, module, score, recipe, split, state)
            ended = state.ended or state.step >= recipe.steps
            if ended or state.step % recipe.save_every == 0:
                _keep(file, state, optimiser)
            if watch is not None and said is not None:
                watch(state, said)
            if ended:
                break
            began = time.monotonic()
            said = _step(subject, module, optimiser, split, state)
            state.history.seconds += time.monotonic() - began
    except BaseException:
        _keep(file, state, optimiser)  # Cancel loses nothing
        raise
    put(module, state.best)
    start = state.history.stopping[0][1]
    return Trained(state.best_step, state.best_reward, start, state.history, difficulty)


def _begin(
    trainee: Trainee,
    module: nn.Module,
    score: Score,
    recipe: Recipe,
    split: Split,
    plain: Mapping[int, float] | None,
) -> TrainingState:
    with torch.no_grad(), autocast(recipe, trainee):
        known = dict(plain or {})
        missing = [row for row in split.train if row not in known]
        if recipe.losses.difficulty > 0 and missing:
            known |= plain_rewards(trainee, score, missing, recipe)
        if not known:
            known = dict.fromkeys(split.train, 0.0)
        start = stopping_reward(trainee, None, score, split.stopping, recipe)
    weights = copied(trained_weights(module))
    return TrainingState(
        step=0,
        weights=weights,
        average=copied(weights),
        best=copied(weights),
        best_step=0,
        best_reward=start,
        optimiser={},
        history=History(stopping=[(0, start)]),
        plain={row: float(value) for row, value in known.items()},
    )


def _step(
    subject: Subject,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    split: Split,
    state: TrainingState,
) -> dict[str, float]:
    recipe, step = subject.recipe, state.step
    for group in optimiser.param_groups:
        group["lr"] = recipe.rate(step)
    optimiser.zero_grad(set_to_none=True)
    size = recipe.batch * recipe.accumulate
    drawn = training_bucket(recipe.seed, step + 1, len(split.train), size)
    bucket = samples(recipe.seed, "qrm", step, [split.train[one.prompt] for one in drawn])
    said: dict[str, float] = {}
    for part in range(recipe.accumulate):
        rows = bucket[part * recipe.batch : (part + 1) * recipe.batch]
        try:
            with autocast(recipe, subject.trainee):
                losses = batch_losses(subject, module, step, part, rows)
        except NoGradientError:
            raise TrainingError(
                "The reward says that it is differentiable, but no gradient comes back from it: "
                "use its search training, or another reward."
            ) from None
        total = weighted(losses, recipe) / recipe.accumulate
        _check(total, step + 1, losses)
        total.backward()
        for name, value in losses.items():
            said[name] = said.get(name, 0.0) + value.item() / recipe.accumulate
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, recipe.gradient_limit)
    _check(norm, step + 1, {"gradient": norm})
    optimiser.step()
    state.step = step + 1
    state.weights = copied(trained_weights(module))
    keep = min(recipe.ema, state.step / (state.step + 9))
    for key, value in state.weights.items():
        state.average[key].lerp_(value, 1 - keep)
    state.history.add(state.step, said)
    return said


def _check(total: Tensor, step: int, losses: Mapping[str, Tensor]) -> None:
    if math.isfinite(float(total.detach())):
        return
    wrong = [name for name, value in losses.items() if not math.isfinite(float(value.detach()))]
    raise TrainingError(
        f"The loss {' and '.join(wrong) or 'as a whole'} of step {step} is no finite number: the "
        f"state after step {step - 1} is kept; give a lower learning rate, or float32, and a new "
        "name."
    )


def _validate(
    trainee: Trainee,
    module: nn.Module,
    score: Score,
    recipe: Recipe,
    split: Split,
    state: TrainingState,
) -> None:
    put(module, state.average)
    try:
        with torch.no_grad():
            reward = stopping_reward(trainee, module, score, split.stopping, recipe)
    finally:
        put(module, state.weights)
    state.history.stopping.append((state.step, reward))
    if reward > state.best_reward:
        state.best, state.best_step, state.best_reward = copied(state.average), state.step, reward
    since = sum(1 for step, _ in state.history.stopping if step > state.best_step)
    state.ended = bool(recipe.patience) and since >= recipe.patience


def _is_due(recipe: Recipe, state: TrainingState) -> bool:
    """Whether the stopping prompts are still to be drawn after this step."""
    due = state.step % recipe.validate_every == 0 or state.step == recipe.steps
    return due and state.history.stopping[-1][0] != state.step


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


def _keep(file: StateFile, state: TrainingState, optimiser: torch.optim.Optimizer) -> None:
    state.optimiser = optimiser.state_dict()
    file.write(state)


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
