"""The two searches behind one ask/tell protocol: what proposes candidates and learns from rewards.

`paper` is CMA-ES with the paper's settings (section 4). `default` is an antithetic evolution
strategy whose gradient estimate feeds Adam: with noisy rewards, averaging many mirrored pairs
that share their prompts and noise beats adapting a covariance (measured on the toy of
tests/unit/test_search.py). Each coordinate has a deviation of its own, 1 for a branch's coefficient
(`ensemble_space.py`): both search as if it had been divided by it. Both depend on their seed and
the rewards told to them and on nothing else, so `calibration.py` recomputes their state from the
journal instead of storing it.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from .evaluation import Floats

PROFILES = ("default", "paper")


class Search(Protocol):
    """A distribution over coefficient vectors that moves towards higher reward."""

    population: int

    @property
    def mean(self) -> Floats:
        """The distribution's mean [N], within the bounds."""
        ...

    @property
    def sigma(self) -> float:
        """The distribution's scale, in units of the coordinates' deviations."""
        ...

    def ask(self) -> Floats:
        """The next generation's candidates [population, N], within the bounds."""
        ...

    def tell(self, rewards: Floats) -> None:
        """Learn from the mean rewards [population] of the candidates last asked for."""
        ...


class AntitheticSearch:
    """Evolution strategy on mirrored pairs with Adam (Kingma and Ba, 2015) on its gradient.

    A pair m + d, m - d shares prompts and noise, so what is common to both cancels in its
    difference. Rewards enter as ranks: one outlying image cannot throw the mean.
    """

    population = 16
    sigma = 0.25  # as in the paper; with less, noise drowns what candidates differ in
    step = 0.05
    step_halves_after = 40  # generations until Adam's step is half of the first
    beta1, beta2, epsilon = 0.7, 0.999, 1e-8

    def __init__(
        self, start: Floats, lower: Floats, upper: Floats, seed: int, deviation: Floats
    ) -> None:
        self.mean = start.astype(np.float64)
        self._lower, self._upper = lower, upper
        self._deviation = deviation
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._momentum = np.zeros_like(self.mean)
        self._square = np.zeros_like(self.mean)
        self._generation = 0
        self._candidates = np.empty((0, len(self.mean)))

    def ask(self) -> Floats:
        noise = self._random.standard_normal((self.population // 2, len(self.mean)))
        away = self.sigma * noise * self._deviation
        pairs = np.concatenate([self.mean + away, self.mean - away])
        self._candidates = np.clip(pairs, self._lower, self._upper)
        return self._candidates.copy()

    def tell(self, rewards: Floats) -> None:
        half = self.population // 2
        ranks = _centred_ranks(rewards)
        weights = ranks[:half] - ranks[half:]
        # At a bound the pair's clipped half counts with the distance it really went.
        distance = self._candidates[:half] - self._candidates[half:]
        distance /= 2 * self.sigma * self._deviation
        # A sum over rows, not a matrix product: the same bits on every BLAS.
        gradient = (weights[:, None] * distance).sum(axis=0) / half

        self._generation += 1
        self._momentum += (1 - self.beta1) * (gradient - self._momentum)
        self._square += (1 - self.beta2) * (gradient**2 - self._square)
        momentum = self._momentum / (1 - self.beta1**self._generation)
        square = self._square / (1 - self.beta2**self._generation)
        step = self.step / (1 + self._generation / self.step_halves_after)
        moved = self.mean + step * momentum / (np.sqrt(square) + self.epsilon) * self._deviation
        self.mean = np.clip(moved, self._lower, self._upper)


class PaperSearch:
    """CMA-ES as published: sigma 0.25, population 4 + floor(3 ln N), the start injected once.

    Published is one deviation for branches and weights; those of `ensemble_space.py` are ours.
    """

    def __init__(
        self, start: Floats, lower: Floats, upper: Floats, seed: int, deviation: Floats
    ) -> None:
        import cma  # slow, since it loads SciPy and pyplot, and only this profile needs it

        self.population = 4 + math.floor(3 * math.log(len(start)))
        random = np.random.Generator(np.random.PCG64(seed))
        options: dict[str, Any] = {
            "popsize": self.population,
            "bounds": [list(lower), list(upper)],
            # Its own random numbers: NumPy's global ones belong to everybody in the process.
            "randn": lambda *shape: random.standard_normal(shape),
            "seed": math.nan,
            "verbose": -9,
        }
        if (deviation != 1.0).any():
            options["CMA_stds"] = list(deviation)
        self._strategy: Any = cma.CMAEvolutionStrategy(list(start), 0.25, options)
        self._strategy.inject([start], force=True)
        self._candidates: list[Floats] = []

    @property
    def mean(self) -> Floats:
        strategy = self._strategy
        return np.array(
            strategy.gp.pheno(strategy.mean, into_bounds=strategy.boundary_handler.repair)
        )

    @property
    def sigma(self) -> float:
        return float(self._strategy.sigma)

    def ask(self) -> Floats:
        self._candidates = self._strategy.ask()
        return np.array(self._candidates, dtype=np.float64)

    def tell(self, rewards: Floats) -> None:
        self._strategy.tell(self._candidates, [-float(reward) for reward in rewards])


def create_search(
    profile: str,
    start: Floats,
    lower: Floats,
    upper: Floats,
    seed: int,
    deviation: Floats | None = None,
) -> Search:
    """The search of a profile, beginning at `start` [N] within `lower` and `upper` [N].

    `deviation` [N], 1 unless given, scales what each coordinate varies and moves by.
    """
    deviation = np.ones(len(start)) if deviation is None else deviation
    if profile == "default":
        return AntitheticSearch(start, lower, upper, seed, deviation)
    if profile == "paper":
        if len(start) < 2:
            raise ValueError(
                "The profile 'paper' was given one coefficient, and CMA-ES needs at least two: "
                "choose the profile 'default' or a finer granularity."
            )
        return PaperSearch(start, lower, upper, seed, deviation)
    raise ValueError(
        f"There is no search profile {profile!r}: choose one of {', '.join(PROFILES)}."
    )


def _centred_ranks(values: Floats) -> Floats:
    """Ranks scaled to -0.5 ... 0.5; equal values share a rank, so a flat reward moves nothing."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts + 1) / 2)[inverse] / (len(values) - 1) - 0.5
    return ranks
