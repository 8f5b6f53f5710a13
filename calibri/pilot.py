"""The pilot: what a run's first generations say of its noise, its cost and its likely gain.

Rewards of a generation, candidates by samples, are a two-way table. What is left of it without the
means of rows and columns is the noise of one image; what rows differ in beyond that noise is the
candidates' spread. Both are measured over PILOT_GENERATIONS of PILOT_BUCKET images for a candidate.

**Images for a candidate.** At equal images the search does best where a bucket's noise is about
three times the spread: more generations are worth more than better known candidates, until noise
wins. On the toy of benchmarks/fewer_images.py that is one image for a candidate in little noise and
64 in much.

**Gain.** After g generations a search of N coordinates has gained about the spread times √N, times
g / (g + T), and T grows with the noise. How much of it differs between toys: the range is the one
that eight in ten held to (docs/search.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .evaluation import Floats

PILOT_GENERATIONS = 2
PILOT_BUCKET = 16  # images for a candidate, where their number is not given: the paper's
FEWEST_IMAGES, MOST_IMAGES = 4, 64  # for a candidate; with fewer validations weigh too much
_BEST_NOISE = math.sqrt(8)  # of a bucket, in units of the spread

# Of a likely gain, in units of the spread times the root of the number of coordinates: what the
# smallest and the largest tenth of the toys' gains lie beyond.
REACH = {"default": (0.1, 0.42), "paper": (0.0, 0.46)}
_ERRORS = 1.6  # of the spread, that the range takes in on either side
_TIME = 3.0  # T without noise, in generations of 16 candidates
_SLOWED = 0.5  # T grows by this times the square of the bucket's noise in units of the spread


@dataclass(frozen=True)
class Spread:
    """How much candidates differ, beside how much one image's noise does; the reward's unit."""

    noise: float
    """Standard deviation of one image's own noise, that of its prompt taken out."""
    square: float
    """Variance of the candidates' true means, as estimated; below zero where noise hides it."""
    error: float
    """Standard error of `square`."""
    hidden: float = 0.0
    """That of candidates which do not differ: so much of `square` noise hides."""

    def shifted(self, errors: float) -> float:
        """The spread, `errors` standard errors added to its square; 0 where that is below zero."""
        return math.sqrt(max(self.square + errors * self.error, 0.0))


def measure_spread(generations: Sequence[Floats]) -> Spread | None:
    """Noise and spread from the rewards [K, S] of generations; None from one image a candidate."""
    noise = freedom = 0.0
    for rewards in generations:
        rest = rewards - rewards.mean(axis=0) - rewards.mean(axis=1, keepdims=True) + rewards.mean()
        noise += float((rest**2).sum())
        freedom += (rewards.shape[0] - 1) * (rewards.shape[1] - 1)
    if not freedom:
        return None
    noise /= freedom
    seen = float(np.mean([rewards.mean(axis=1).var(ddof=1) for rewards in generations]))
    own = noise * float(np.mean([1 / rewards.shape[1] for rewards in generations]))
    candidates = sum(len(rewards) - 1 for rewards in generations)
    error = math.sqrt(2 / candidates)
    return Spread(math.sqrt(noise), seen - own, seen * error, own * error)


def images_for_candidate(spread: Spread) -> int:
    """The bucket size to go on with: a power of two.

    The spread is taken a standard error larger: in doubt fewer images, for more generations.
    """
    if spread.noise == 0:
        return FEWEST_IMAGES
    between = spread.shifted(1)
    if between == 0:
        return MOST_IMAGES
    wanted = 2 * math.log2(spread.noise / between / _BEST_NOISE)
    fewest, most = math.log2(FEWEST_IMAGES), math.log2(MOST_IMAGES)
    return int(2 ** round(min(max(wanted, fewest), most)))


@dataclass(frozen=True)
class Pilot:
    """What a run will cost and is likely to gain, by its first generations."""

    bucket_size: int
    """Images for a candidate from here on."""
    generations: int
    images: int
    """Of the whole run, at most."""
    seconds: float
    """That these take at the pilot's pace, loading of models aside."""
    low: float
    """Likely gain of the searched reward on held-out prompts, from here …"""
    high: float
    """… to here."""

    @property
    def sentence(self) -> str:
        """In words."""
        size = f"{self.bucket_size} image{'' if self.bucket_size == 1 else 's'} for each candidate"
        gain = f"likely gains {self.low:+.2g} to {self.high:+.2g}"
        if self.high == 0:
            gain = "gains nothing, since candidates score alike"
        elif self.low == 0:
            gain = f"gains {self.high:+.2g} at most, perhaps nothing, as far as the noise lets see"
        return (
            f"By its first generations the run draws {self.images:,} images at most, {size}, in "
            f"{duration(self.seconds)}, and {gain}."
        )


def expected_gain(
    spread: Spread,
    bucket_size: int,
    generations: int,
    population: int,
    coordinates: int,
    profile: str,
) -> tuple[float, float]:
    """The range in which a run's gain is likely to lie; (0, 0) where candidates score alike.

    Where noise hides how much they differ it begins at 0 and ends at what noise can hide.
    """
    most = max(spread.shifted(_ERRORS), math.sqrt(_ERRORS * spread.hidden))
    if most == 0:
        return 0.0, 0.0
    between = spread.shifted(1) or most
    noise = spread.noise / math.sqrt(bucket_size) / between
    time = _TIME * (1 + _SLOWED * noise**2) * 16 / population
    unit = math.sqrt(coordinates) * generations / (generations + time)
    low, high = REACH[profile]
    return low * spread.shifted(-_ERRORS) * unit, high * most * unit


def duration(seconds: float) -> str:
    """Seconds in words, in the unit that suits them."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} minutes"
    if seconds < 36 * 3600:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 86400:.1f} days"
