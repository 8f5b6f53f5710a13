"""Remedies against noise, on the toy of benchmarks/search.py: those that were taken and those not.

    python -m comfyui_calibri.experiments.search_remedies --seeds 0-10 > remedies.jsonl

A JSON line for each remedy and noise: medians of the evaluations until 10 % and 5 % of the gap are
left, and the gaps after 1,000 and 4,000. CMA-ES and its variants are the library cma's; a remedy
that evaluates a candidate again pays for it. docs/search.md has the results in words.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..benchmarks.search import (
    GAPS_AT,
    IDENTITY,
    LOWER,
    MOST_EVALUATIONS,
    UPPER,
    Descent,
    _seeds,
    descend,
    toy,
)
from ..calibri.evaluation import Floats
from ..calibri.search import AntitheticSearch, PaperSearch

NOISES = (0.0, 0.03, 0.1)
ONES = np.ones(len(IDENTITY))


class CmaVariant(PaperSearch):
    """CMA-ES from the plain model with other options of the library."""

    def __init__(
        self, seed: int, population: int = 16, sigma: float = 0.25, **options: Any
    ) -> None:
        import cma

        random = np.random.Generator(np.random.PCG64(seed))
        self.population = population
        if options.pop("vkd", False):
            options = cma.restricted_gaussian_sampler.GaussVkDSampler.extend_cma_options(options)
        if options.pop("tpa", False):
            options["AdaptSigma"] = cma.sigma_adaptation.CMAAdaptSigmaTPA
        options |= {
            "popsize": population,
            "bounds": [list(LOWER), list(UPPER)],
            "randn": lambda *shape: random.standard_normal(shape),
            "seed": math.nan,
            "verbose": -9,
        }
        self._strategy = cma.CMAEvolutionStrategy(list(IDENTITY), sigma, options)
        self._strategy.inject([IDENTITY], force=True)
        self._candidates = []


class Averaging(AntitheticSearch):
    """The default, its mean an average over generations: KEPT of the old one stays."""

    kept = 0.8

    def tell(self, rewards: Floats) -> None:
        before = getattr(self, "_averaged", self.mean)
        super().tell(rewards)
        self._averaged = self.kept * before + (1 - self.kept) * self.mean

    @property
    def averaged(self) -> Floats:
        return self._averaged


def antithetic(seed: int, kind: type[AntitheticSearch] = AntitheticSearch, **set_: Any) -> Any:
    search = kind(IDENTITY, LOWER, UPPER, seed, ONES)
    for name, value in set_.items():
        setattr(search, name, value)
    return search


REMEDIES: dict[str, Callable[[int], Any]] = {
    "paper": CmaVariant,
    "paper, population 32": lambda seed: CmaVariant(seed, population=32),
    "paper, sigma 0.1": lambda seed: CmaVariant(seed, sigma=0.1),
    "paper, population 32 and sigma 0.1": lambda s: CmaVariant(s, population=32, sigma=0.1),
    "paper, two-point step size (TPA)": lambda seed: CmaVariant(seed, tpa=True),
    "paper, mirrored": lambda seed: CmaVariant(seed, CMA_mirrors=0.5),
    "VkD-CMA": lambda seed: CmaVariant(seed, vkd=True),
    "paper, re-evaluated as noise asks": CmaVariant,
    "default": antithetic,
    "default, sigma 0.1": lambda seed: antithetic(seed, sigma=0.1),
    "default, population 8": lambda seed: antithetic(seed, population=8),
    "default, population 32": lambda seed: antithetic(seed, population=32),
    "default, averaged over generations": lambda seed: antithetic(seed, Averaging),
    "default, each candidate twice": antithetic,
}


def descent(name: str, seed: int, noise: float) -> Descent:
    """One remedy's descent; evaluations are counted with repetitions."""
    search = REMEDIES[name](seed)
    if name.endswith("as noise asks"):
        return _reevaluated(search, seed, noise)
    if name.endswith("twice"):
        found = descend(search, seed, noise / math.sqrt(2), MOST_EVALUATIONS // 2)
        return Descent(2 * search.population, found.gaps)
    if isinstance(search, Averaging):
        gap, random, gaps = toy(seed), np.random.default_rng(seed), []
        for _ in range(MOST_EVALUATIONS // search.population):
            candidates = search.ask()
            own = noise * random.standard_normal(len(candidates))
            search.tell(own - gap(candidates))
            gaps.append(gap(search.averaged))
        return Descent(search.population, np.array(gaps))
    return descend(search, seed, noise, MOST_EVALUATIONS)


def _reevaluated(search: CmaVariant, seed: int, noise: float) -> Descent:
    """CMA-ES with the library's uncertainty handling: more evaluations where ranks change."""
    import cma

    gap, random = toy(seed), np.random.default_rng(seed)
    strategy, handler = search._strategy, cma.NoiseHandler(len(IDENTITY), maxevals=[1, 1, 64])
    used, at, gaps = 0, [], []
    state = np.random.get_state()  # the handler draws which candidates it tries again
    np.random.seed(seed)
    while used < MOST_EVALUATIONS:
        offset = random.standard_normal()

        def loss(vector: Floats, count: int = 1, offset: float = offset) -> float:
            return (
                float(gap(np.asarray(vector)))
                + offset
                + noise * float(random.standard_normal()) / math.sqrt(count)
            )

        count = max(int(handler.evaluations), 1)
        candidates = strategy.ask()
        losses = [loss(candidate, count) for candidate in candidates]
        strategy.tell(candidates, losses)
        strategy.sigma *= handler(candidates, losses, loss, strategy.ask)
        used += count * len(candidates) + handler.evaluations_just_done
        at.append(used)
        gaps.append(float(gap(search.mean)))
    np.random.set_state(state)
    # As if each population had cost the same, so that evaluations are read off alike.
    steps = np.arange(16, MOST_EVALUATIONS + 1, 16)
    index = np.searchsorted(at, steps, side="right") - 1
    return Descent(16, np.array([gaps[i] if i >= 0 else 1.0 for i in index]))


def measure(name: str, noise: float, seeds: range) -> dict[str, Any]:
    """Medians over the seeds; None where half of them do not get there."""
    found = [descent(name, seed, noise) for seed in seeds]

    def median_to(gap: float) -> int | None:
        needed = float(np.median([run.evaluations_to(gap) for run in found]))
        return int(needed) if np.isfinite(needed) else None

    return {
        "remedy": name,
        "noise": noise,
        "seeds": [seeds[0], seeds[-1]],
        "evaluations_to_10_percent": median_to(0.1),
        "evaluations_to_5_percent": median_to(0.05),
        **{
            f"gap_at_{at}": round(float(np.median([run.gap_at(at) for run in found])), 4)
            for at in GAPS_AT
        },
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=_seeds, default=range(11), metavar="A-B")
    options = parser.parse_args()
    for name in REMEDIES:
        for noise in NOISES:
            print(json.dumps(measure(name, noise, options.seeds)), flush=True)


if __name__ == "__main__":
    main()
