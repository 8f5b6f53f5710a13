"""The losses of a QRM's training, each a number per batch; `recipe.LossWeights` weighs them.

The paper (arXiv text in docs/qrm.md) says that losses were ablated and not which; these are ours:

- **flow**: how far the model's velocity is from the data's, on latents of pictures (flow matching).
- **late**: minus the reward of the one-step prediction x0 at a sampled late step of the schedule.
- **last**: minus the reward of the finished picture, with gradients through the last k steps.
- **difficulty**: how far the quality token is from the reward that the *plain* model gets for this
  prompt, in standard deviations over prompts. The module never sees a picture, so it is the
  prompt's difficulty that it can know.
- **size**: the mean square of the vectors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..calibri.evaluation import Sample, noise_seed
from ..calibri.vectors import Vectors
from .recipe import Recipe
from .trainee import Denoised, Score, Trainee, initial_noise, onward, sample


@dataclass(frozen=True)
class Latents:
    """Pictures to learn from: latents [N, ...] as the model sees them, and each one's prompt."""

    values: Tensor
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Difficulty:
    """Mean rewards of the plain model, by prompt: raw ones and their spread over the prompts."""

    rewards: Mapping[int, float]
    mean: float
    deviation: float

    @classmethod
    def of(cls, rewards: Mapping[int, float]) -> Difficulty:
        """From each training prompt's mean reward."""
        values = np.array(list(rewards.values()))
        return cls(dict(rewards), float(values.mean()), max(float(values.std()), 1e-6))

    def targets(self, rows: Sequence[int], like: Tensor) -> Tensor:
        """In standard deviations [B]; the mean for a prompt that was not measured."""
        known = [(self.rewards.get(row, self.mean) - self.mean) / self.deviation for row in rows]
        return torch.tensor(known, dtype=like.dtype, device=like.device)


@dataclass(frozen=True)
class Subject:
    """All that losses look at beside the module."""

    trainee: Trainee
    score: Score
    recipe: Recipe
    latents: Latents | None = None
    difficulty: Difficulty | None = None


def batch_losses(
    subject: Subject, module: nn.Module, step: int, part: int, bucket: Sequence[Sample]
) -> dict[str, Tensor]:
    """The losses [] that `step` has, unweighted; `part` counts the batches of one step."""
    weights = subject.recipe.losses
    found: dict[str, Tensor] = {}
    said: list[tuple[Denoised, Sequence[int]]] = []
    if weights.flow > 0:
        found["flow"] = _flow(subject, module, step, part, said)
    if weights.late > 0 and (weights.last == 0 or step % 2 == 0):
        found["late"] = _late(subject, module, step, bucket, said)
    elif weights.last > 0:
        found["last"] = _last(subject, module, bucket, said)
    if weights.difficulty > 0 and subject.difficulty is not None:
        errors = [
            (one.quality - subject.difficulty.targets(rows, one.quality)).square().mean()
            for one, rows in said
            if one.quality is not None
        ]
        if errors:
            found["difficulty"] = torch.stack(errors).mean()
    if weights.size > 0:
        sizes = [_size(one.vectors) for one, _ in said if one.vectors is not None]
        if sizes:
            found["size"] = torch.stack(sizes).mean()
    return found


def weighted(losses: Mapping[str, Tensor], recipe: Recipe) -> Tensor:
    """Their weighted sum []."""
    return torch.stack([getattr(recipe.losses, k) * v for k, v in losses.items()]).sum()


def _late(
    subject: Subject,
    module: nn.Module,
    step: int,
    bucket: Sequence[Sample],
    said: list[tuple[Denoised, Sequence[int]]],
) -> Tensor:
    trainee, recipe = subject.trainee, subject.recipe
    steps = len(trainee.sigmas) - 1
    late = max(1, math.ceil(steps * recipe.late_share))
    at = steps - late + noise_seed(recipe.seed, "late", step, 0, 0) % late
    rows = [one.prompt for one in bucket]
    x = sample(trainee, module, rows, [one.seed for one in bucket], until=at)
    _, found = onward(trainee, module, x, rows, at)
    said.append((found, rows))
    return -_reward(subject, found.x0, rows)


def _last(
    subject: Subject,
    module: nn.Module,
    bucket: Sequence[Sample],
    said: list[tuple[Denoised, Sequence[int]]],
) -> Tensor:
    trainee = subject.trainee
    steps = len(trainee.sigmas) - 1
    first = max(0, steps - subject.recipe.backward_steps)
    rows = [one.prompt for one in bucket]
    x = sample(trainee, module, rows, [one.seed for one in bucket], until=first)
    for at in range(first, steps):
        x, found = onward(trainee, module, x, rows, at)
        said.append((found, rows))
    return -_reward(subject, x, rows)


def _reward(subject: Subject, latents: Tensor, rows: Sequence[int]) -> Tensor:
    trainee = subject.trainee
    if latents.requires_grad:
        latents.register_hook(lambda gradient: without_outliers(gradient, subject.recipe.outlier))
    rewards = subject.score(trainee.decode(latents), [trainee.prompts[row] for row in rows])
    if not rewards.requires_grad:
        raise NoGradientError
    return rewards.float().mean()


def without_outliers(gradient: Tensor, times: float) -> Tensor:
    """A gradient [B, ...] in which no row is longer than `times` the rows' median length.

    A reward's gradient is heavy-tailed: of 16 of the demo's pictures one had 200 times the median,
    and the step was that one picture's. 0 changes nothing, as does a batch of one.
    """
    lengths = gradient.flatten(1).norm(dim=1)
    limit = times * lengths.median()
    if times <= 0 or len(lengths) == 1:
        return gradient
    shorter = (limit / lengths.clamp(min=1e-30)).clamp(max=1.0)
    kept: Tensor = gradient * shorter.view(-1, *[1] * (gradient.ndim - 1))
    return kept


def _size(vectors: Vectors) -> Tensor:
    every = (*vectors.add.values(), *vectors.scale.values())
    return torch.stack([vector.float().square().mean() for vector in every]).mean()


def _flow(
    subject: Subject,
    module: nn.Module,
    step: int,
    part: int,
    said: list[tuple[Denoised, Sequence[int]]],
) -> Tensor:
    assert subject.latents is not None
    trainee, recipe = subject.trainee, subject.recipe
    seed = noise_seed(recipe.seed, "flow", step, part, 0)
    generator = torch.Generator().manual_seed(seed)
    held, size = subject.latents, recipe.batch
    chosen = torch.randint(len(held.rows), (size,), generator=generator).tolist()
    # Logit-normal in strata: an even spread of noise levels in each batch.
    quantiles = (torch.arange(size) + torch.rand(size, generator=generator)) / size
    sigma = torch.sigmoid(torch.special.ndtri(quantiles.clamp(1e-3, 1 - 1e-3)))
    sigma = (sigma * trainee.sigmas[0]).to(trainee.device)
    noise = initial_noise(trainee.shape, [noise_seed(seed, "noise", i, 0, 0) for i in range(size)])
    clean = held.values[chosen].to(trainee.device).float()
    x = trainee.noised(clean, noise.to(trainee.device), sigma)
    rows = [held.rows[index] for index in chosen]
    trainee.look_up()
    found = trainee.denoised(x, sigma, rows, module)
    said.append((found, rows))
    away = (found.x0.float() - clean) / sigma.view(-1, *[1] * (clean.ndim - 1))
    loss: Tensor = away.square().mean()
    return loss


class NoGradientError(RuntimeError):
    """The reward's numbers carry no gradient back to the pictures."""
