"""Which coefficients a run recommends, and how much better they are.

Never the candidate with the luckiest training reward: finalists are the identity, the preset that
the search began at if it did, its last mean and the means that validation liked best. New noise on
held-out prompts picks among them, and noise that no choice has seen measures the gain that is
published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .evaluation import Floats, Sample

RESAMPLES = 10_000
LEVEL = 0.95
VALIDATED_FINALISTS = 2
START = -1
"""Stands among the generations for a warm start's preset, as 0 stands for the plain model."""


@dataclass(frozen=True)
class Interval:
    """A mean over prompts and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Finalist:
    """The search's mean after `generation` and its mean rewards; 0 is the identity."""

    generation: int
    vector: Floats
    validation: float
    selection: float


def finalist_generations(validation: Mapping[int, float], last: int) -> list[int]:
    """Generations whose means are finalists: 0, START, the best validated ones, and the last.

    `validation` maps generations to mean validation reward and holds 0 and `last`, and START where
    the search began at a preset.
    """
    others = [generation for generation in validation if generation not in (0, START, last)]
    best = sorted(others, key=lambda generation: (-validation[generation], generation))
    begun = [0, START] if START in validation else [0]
    return [*begun, *sorted(best[:VALIDATED_FINALISTS]), last]


def prompt_means(rewards: Floats, bucket: Sequence[Sample]) -> Floats:
    """Rewards [S] averaged over each prompt's images: [P], ordered by prompt."""
    prompts, inverse = np.unique([sample.prompt for sample in bucket], return_inverse=True)
    sums = np.bincount(inverse, weights=rewards, minlength=len(prompts))
    return sums / np.bincount(inverse)


def bootstrap_interval(values: Floats, seed: int) -> Interval:
    """Percentile bootstrap of the mean of `values` [P], one per prompt, prompts resampled.

    Give differences per prompt for a paired interval. At least two prompts.
    """
    if len(values) < 2:
        raise ValueError(
            f"An interval over prompts was asked for {len(values)} prompt: give at least two."
        )
    random = np.random.default_rng(seed)
    drawn = random.integers(len(values), size=(RESAMPLES, len(values)))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values[drawn].mean(axis=1), [tail, 1 - tail])
    return Interval(float(values.mean()), float(low), float(high))
