"""How many evaluations a search profile needs, on a noisy quadratic toy.

    python -m comfyui_calibri.benchmarks.search --noise 0.1 --seeds 0-10 --profile default --json

The toy stands for a reward near its optimum: 57 coefficients (FLUX at block granularity),
curvatures log-uniform over three decades in randomly rotated directions, the optimum at
1 + 0.3 · randn. A generation's candidates share an offset of standard deviation 1, as candidates
that share their bucket do, and each has noise of its own. Gaps are those of the search's mean, in
units of the identity's. `--set sigma=0.3` tries a variant of the default profile.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..calibri.evaluation import Floats
from ..calibri.search import PROFILES, Search, create_search

SIZE = 57
IDENTITY, LOWER, UPPER = np.ones(SIZE), np.full(SIZE, -1.0), np.full(SIZE, 2.0)
MOST_EVALUATIONS = 4800
GAPS_AT = (1000, 4000)


@dataclass(frozen=True)
class Descent:
    """The gap of a search's mean after each generation, in units of the initial gap."""

    population: int
    gaps: Floats

    def evaluations_to(self, gap: float) -> float:
        """Evaluations until the gap is first reached, infinity where it never is."""
        reached = np.flatnonzero(self.gaps <= gap)
        return float((reached[0] + 1) * self.population) if reached.size else float("inf")

    def gap_at(self, evaluations: int) -> float:
        """The gap after the last generation within `evaluations`."""
        return float(self.gaps[evaluations // self.population - 1])


def toy(seed: int) -> Callable[[Floats], Floats]:
    """A gap to be closed, 1 at the identity and 0 at the optimum: [..., SIZE] to [...]."""
    random = np.random.default_rng(1000 + seed)
    rotation, _ = np.linalg.qr(random.standard_normal((SIZE, SIZE)))
    curvature = 10 ** random.uniform(-3, 0, SIZE)
    optimum = 1 + 0.3 * random.standard_normal(SIZE)

    def gap(vectors: Floats) -> Floats:
        squares: Floats = ((vectors - optimum) @ rotation) ** 2
        return (squares * curvature).sum(axis=-1)

    initial = gap(IDENTITY)
    return lambda vectors: gap(vectors) / initial


def descend(search: Search, seed: int, noise: float, evaluations: int) -> Descent:
    """Let `search` close the toy's gap; `noise` is each evaluation's, in units of that gap."""
    gap, random = toy(seed), np.random.default_rng(seed)
    gaps = []
    for _ in range(evaluations // search.population):
        candidates = search.ask()
        offset = random.standard_normal()
        own = noise * random.standard_normal(len(candidates))
        search.tell(offset + own - gap(candidates))
        gaps.append(gap(search.mean))
    return Descent(search.population, np.array(gaps))


def measure(
    profile: str, noise: float, seeds: Sequence[int], settings: Mapping[str, float]
) -> dict[str, object]:
    """Medians over `seeds`; evaluations that half of the seeds do not reach are None."""
    runs = []
    for seed in seeds:
        search = create_search(profile, IDENTITY, LOWER, UPPER, seed)
        for name, value in settings.items():
            setattr(search, name, type(getattr(search, name))(value))
        runs.append(descend(search, seed, noise, MOST_EVALUATIONS))

    def median_to(gap: float) -> int | None:
        needed = float(np.median([run.evaluations_to(gap) for run in runs]))
        return int(needed) if np.isfinite(needed) else None

    return {
        "noise": noise,
        "profile": profile,
        **({"settings": dict(settings)} if settings else {}),
        "seeds": [seeds[0], seeds[-1]],
        "evaluations_to_10_percent": median_to(0.1),
        "evaluations_to_5_percent": median_to(0.05),
        **{f"gap_at_{at}": float(np.median([run.gap_at(at) for run in runs])) for at in GAPS_AT},
    }


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    if not seeds:
        raise argparse.ArgumentTypeError(f"{text!r} holds no seed: write it as 0-10.")
    return seeds


def _setting(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    return name, float(value)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--seeds", type=_seeds, default=range(11), metavar="A-B")
    parser.add_argument("--profile", choices=PROFILES, default="default")
    parser.add_argument("--set", type=_setting, action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--json", action="store_true", help="one JSON line instead of a table")
    options = parser.parse_args()
    found = measure(options.profile, options.noise, options.seeds, dict(options.set))
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:27} {value:.4f}" if isinstance(value, float) else f"{name:27} {value}")


if __name__ == "__main__":
    main()
