"""Whether a search has gained most of what it will: what the validations say of going on.

A search's gain after g generations follows about A g / (g + T): on the toys of
benchmarks/fewer_images.py within a few hundredths for every noise and bucket size, with another T
for each. Validations of the mean at several g say which A and T are likely. A further generation
then brings T / (g + T) of what one has brought on average, and the search ends once that is less
than LEAST with a probability of SURE. Where noise hides what was gained, large T stay likely and it
goes on. Asked after every validation it is sometimes misled all the same: docs/search.md has what
that costs at most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .evaluation import Floats
from .selection import Interval, mean_interval

LEAST = 0.1
SURE = 0.9
FALL = 2.0  # standard errors below the start, and the search leads nowhere
FEWEST_VALIDATIONS = 4  # after the first, that of the start
_TIMES = np.geomspace(1, 1000, 40)  # generations


@dataclass(frozen=True)
class Prospect:
    """What is expected of a search that has run `generation` generations.

    `gained` is what the last validation is above the first. `further` is expected of the
    generations up to the budget. `rate` is what one more of them brings at most, in units of what
    one has brought on average, with a probability of SURE.
    """

    generation: int
    generations: int
    gained: Interval
    """In the reward's unit, as `further`; paired, over prompts."""
    further: float
    rate: float

    @property
    def is_over(self) -> bool:
        """Whether going on costs more than it is expected to bring."""
        return self.rate < LEAST

    @property
    def sentence(self) -> str:
        """Why the search ended."""
        found, left = self.gained, self.generations - self.generation
        interval = f"{found.mean:+.2g} (95 % interval {found.low:+.2g} to {found.high:+.2g})"
        why = f"the {left} that were left would have brought about {self.further:+.2g}, where "
        if found.mean <= 0:
            why = "held-out prompts have not risen but fallen: "
        return (
            f"The search ended early, after {self.generation} of {self.generations} generations: "
            f"{why}{interval} {'is gained' if found.mean > 0 else 'since it began'}. Raise "
            "generations and queue again to go on all the same."
        )


def prospect(means: Mapping[int, Floats], generations: int) -> Prospect | None:
    """What further generations are expected to bring, up to a budget of `generations`.

    `means` maps validated generations, 0 among them, to mean rewards per held-out prompt [P], all
    from the same noise. None where that is too little to go by.
    """
    at = np.array(sorted(means), dtype=np.float64)
    last = int(at[-1])
    if len(at) <= FEWEST_VALIDATIONS or last >= generations:
        return None
    rewards = np.stack([means[int(generation)] for generation in at])  # [V, P]
    values = rewards.mean(axis=1)
    residuals = rewards - values[:, None] - rewards.mean(axis=0) + values.mean()
    freedom = (len(values) - 1) * (rewards.shape[1] - 1)
    variance = float((residuals**2).sum()) / freedom / rewards.shape[1]
    if variance == 0:
        return None
    gained = mean_interval(rewards[-1] - rewards[0])
    if gained.mean <= 0:
        # There is no curve to follow: it goes on unless that is more than noise.
        has_fallen = gained.mean < -FALL * math.sqrt(2 * variance)
        return Prospect(last, generations, gained, 0.0, 0.0 if has_fallen else 1.0)

    weights, gains, rates = [], [], []
    for time in _TIMES:
        # Of the gain at the budget's end, what the curve has at each validation.
        curve = at / (at + time) * (1 + time / generations)
        centred, spread = curve - curve.mean(), values - values.mean()
        square = float((centred**2).sum())
        fitted = float((centred * spread).sum()) / square
        rest = float(((spread - fitted * centred) ** 2).sum())
        positive, mean = _above_zero(fitted, math.sqrt(variance / square))
        weights.append(-rest / (2 * variance) + math.log(positive) - 0.5 * math.log(square))
        gains.append(mean)
        rates.append(float(time) / (last + float(time)))
    likely = np.exp(np.array(weights) - max(weights))
    likely /= likely.sum()
    share = last / (last + _TIMES) * (1 + _TIMES / generations)  # of the budget's gain, by now
    so_far = likely * gains * share
    # Rates rise with the times.
    sure = int((so_far.cumsum() < SURE * so_far.sum()).sum())
    return Prospect(
        generation=last,
        generations=generations,
        gained=gained,
        further=float((likely * gains * (1 - share)).sum()),
        rate=rates[min(sure, len(rates) - 1)],
    )


def _above_zero(mean: float, deviation: float) -> tuple[float, float]:
    """How likely a normal number is positive, and its mean where it is."""
    at = mean / deviation
    if at < -8:  # in the tail the mean is about deviation / |at|
        return 1e-16, deviation / -at
    positive = 0.5 * math.erfc(-at / math.sqrt(2))
    density = math.exp(-0.5 * at * at) / math.sqrt(2 * math.pi)
    return positive, mean + deviation * density / positive
