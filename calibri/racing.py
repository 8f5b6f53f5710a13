"""Racing: finalists are compared in rounds, and one that is beaten is drawn no more.

The first round takes a quarter of the samples, the second a half, the last all of them. After each,
a finalist leaves whose paired difference to the one that leads lies below zero by MARGIN standard
errors. Candidates of a generation are not raced: the search learns from all of them alike, and what
is spent on settling who is better is missing for the next generation (docs/search.md has numbers).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np

from .evaluation import Floats, Sample
from .selection import prompt_means

ROUNDS = (0.25, 0.5, 1.0)  # of the samples
FEWEST_PROMPTS = 8  # that one may be beaten on
MARGIN = 2.5  # standard errors: of two that are equal, 1 in 18 to 27 leaves before the end
LEAD = 1.0  # standard errors: a tie is the plain model's


@dataclass(frozen=True)
class Round:
    """What a round draws: the finalists `entrants`, by their row, on `bucket`."""

    role: str
    entrants: tuple[int, ...]
    bucket: tuple[Sample, ...]


@dataclass(frozen=True)
class Drawn:
    """A round's rewards [entrants, samples]. `bucket` may hold more samples than were asked for."""

    rewards: Floats
    bucket: tuple[Sample, ...]


@dataclass(frozen=True)
class Ranking:
    """`pick` is the row that won. `scores` [F] are mean rewards on the samples that were drawn.

    That is not all of them where a race ended early. The score of a finalist that left before is
    the pick's, less what it was behind on the samples that both were drawn on.
    """

    pick: int
    scores: Floats
    is_ahead: bool
    """Whether the pick leads row 0, the plain model, by more than LEAD standard errors."""


def race(finalists: int, role: str, bucket: Sequence[Sample]) -> Generator[Round, Drawn, Ranking]:
    """Find the best of `finalists` on `bucket`, whose first samples are of different prompts.

    Is sent the rewards after each Round. A round that was answered on the whole bucket, as runs of
    earlier versions were, is the last.
    """
    rewards = np.full((finalists, len(bucket)), np.nan)
    left = tuple(range(finalists))
    done = 0
    for number, size in enumerate(round_sizes(bucket), 1):
        name = role if number == 1 else f"{role} {number}"
        drawn = yield Round(name, left, tuple(bucket[done:size]))
        size = done + len(drawn.bucket)
        rewards[list(left), done:size] = drawn.rewards
        done = size
        left = _unbeaten(rewards[:, :done], left, bucket[:done])
        if len(left) == 1 or done == len(bucket):
            break
    return _ranking(rewards[:, :done], left, bucket[:done])


def round_sizes(bucket: Sequence[Sample]) -> list[int]:
    """How many samples have been drawn after each round."""
    sizes = sorted({math.ceil(len(bucket) * part) for part in ROUNDS})
    return [
        size
        for size in sizes
        if size == len(bucket) or len({sample.prompt for sample in bucket[:size]}) >= FEWEST_PROMPTS
    ]


def _unbeaten(rewards: Floats, left: tuple[int, ...], bucket: Sequence[Sample]) -> tuple[int, ...]:
    leader = max(left, key=lambda row: float(rewards[row].mean()))
    return tuple(
        row
        for row in left
        if row == leader or not _is_beaten(prompt_means(rewards[row] - rewards[leader], bucket))
    )


def _is_beaten(behind: Floats) -> bool:
    """Whether differences [P], one per prompt, are below zero beyond chance."""
    if len(behind) < FEWEST_PROMPTS:
        return False
    error = float(behind.std(ddof=1)) / math.sqrt(len(behind))
    return float(behind.mean()) < -MARGIN * error


def _ranking(rewards: Floats, left: tuple[int, ...], bucket: Sequence[Sample]) -> Ranking:
    pick = max(left, key=lambda row: float(rewards[row].mean()))
    behind = np.nanmean(rewards - rewards[pick], axis=1)
    both = np.flatnonzero(np.isfinite(rewards[0]))
    drawn = [bucket[sample] for sample in both.tolist()]
    lead = prompt_means((rewards[pick] - rewards[0])[both], drawn)
    error = float(lead.std(ddof=1)) / math.sqrt(len(lead))
    is_ahead = float(lead.mean()) > LEAD * error
    return Ranking(pick, float(rewards[pick].mean()) + behind, is_ahead)
