"""Mean rewards of finished pictures: the plain model's by prompt, and on the stopping prompts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..calibri.evaluation import Sample, samples
from ..training.state import TrainingError
from .recipe import Recipe
from .trainee import Score, Trainee, sample


@torch.no_grad()
def plain_rewards(
    trainee: Trainee, score: Score, rows: Sequence[int], recipe: Recipe
) -> dict[int, float]:
    """The plain model's mean reward over `plain_images` pictures of each prompt: its difficulty."""
    bucket = samples(recipe.seed, "plain", 0, [r for r in rows for _ in range(recipe.plain_images)])
    rewards = draw(trainee, None, score, bucket, recipe.batch)[1]
    means = rewards.view(len(rows), -1).mean(1).tolist()
    return dict(zip(rows, means, strict=True))


@torch.no_grad()
def stopping_reward(
    trainee: Trainee, module: nn.Module | None, score: Score, rows: Sequence[int], recipe: Recipe
) -> float:
    """The mean reward on the stopping prompts, always from the same noise."""
    repeated = [row for row in rows for _ in range(recipe.stopping_images)]
    bucket = samples(recipe.seed, "stopping", 0, repeated)
    return float(draw(trainee, module, score, bucket, recipe.batch)[1].mean())


@torch.no_grad()
def draw(
    trainee: Trainee,
    module: nn.Module | None,
    score: Score,
    bucket: Sequence[Sample],
    size: int,
) -> tuple[Tensor, Tensor]:
    """Pictures [N, H, W, 3] in 0..1 and rewards [N] of `bucket`, `size` at once, on the CPU.

    Raises TrainingError where a reward is no finite number.
    """
    pictures, rewards = [], []
    for start in range(0, len(bucket), size):
        part = bucket[start : start + size]
        rows = [one.prompt for one in part]
        latents = sample(trainee, module, rows, [one.seed for one in part])
        images = trainee.decode(latents)
        trainee.look_up()
        found = score(images, [trainee.prompts[row] for row in rows]).cpu().double()
        if not bool(torch.isfinite(found).all()):
            first = int((~torch.isfinite(found)).nonzero()[0])
            raise TrainingError(
                f"The reward of the prompt {trainee.prompts[rows[first]]!r} is no finite number: "
                "look whether the model draws it, and use another reward where it does."
            )
        pictures.append(images.cpu())
        rewards.append(found)
    return torch.cat(pictures), torch.cat(rewards)
