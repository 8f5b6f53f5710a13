"""Which coefficients a run recommends, and how much better they are.

Never the candidate with the luckiest training reward: finalists are the identity, the preset that
the search began at if it did, its last mean and the means that validation liked best. New noise on
held-out prompts picks among them, and noise that no choice has seen measures the gain that is
published.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from .evaluation import Floats, Sample

DRAWS = 4000  # of the largest t; its quantile is known to 1 %
LEVEL = 0.95
VALIDATED_FINALISTS = 2
START = -1
"""Stands among the generations for a warm start's preset, as 0 stands for the plain model."""


@dataclass(frozen=True)
class Interval:
    """A mean over prompts and its 95 % interval."""

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


def mean_interval(values: Floats) -> Interval:
    """Student's 95 % interval of the mean of `values` [P], one per prompt.

    Give differences per prompt for a paired interval. At least two prompts. It covers the mean of
    all prompts of their kind as often as it says from 8 prompts on, where resampled ones,
    percentile or BCa, are too narrow (docs/gain.md).
    """
    return _interval(values, _student(len(values)))


def chosen_interval(values: Floats, considered: Floats, seed: int) -> Interval:
    """`mean_interval` of `values` [P] of one candidate, widened for its having been chosen.

    `considered` [C, P] are the values of all candidates that it was chosen from, with the same
    prompts and any noise. Prompts that happened to suit the chosen one are still among `values`,
    whatever their noise. So the interval is as wide as it takes for those of all C candidates to
    cover their means together in 95 % of cases (the largest of C correlated Student's t).
    """
    residuals = considered - considered.mean(axis=1, keepdims=True)
    spread = np.sqrt((residuals**2).mean(axis=1))
    varied = spread > 1e-9 * max(1e-300, float(spread.max(initial=0.0)))
    widest = _student(len(values))
    if varied.sum() > 1:
        random, prompts = np.random.default_rng(seed), considered.shape[1]
        scaled = (residuals[varied] / spread[varied, None]).T / np.sqrt(prompts)  # [P, C]
        normal = np.abs(random.standard_normal((DRAWS, prompts)) @ scaled).max(axis=1)
        freedom = prompts - 1
        student = normal / np.sqrt(random.chisquare(freedom, DRAWS) / freedom)
        widest = max(widest, float(np.quantile(student, LEVEL)))
    return _interval(values, widest)


def _student(count: int) -> float:
    """How many standard errors to either side of a mean of `count` values are its interval."""
    if count < 2:
        raise ValueError(
            f"An interval over prompts was asked for {count} prompt: give at least two."
        )
    return float(stdtrit(count - 1, (1 + LEVEL) / 2))


def _interval(values: Floats, errors: float) -> Interval:
    mean = float(values.mean())
    half = errors * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)
