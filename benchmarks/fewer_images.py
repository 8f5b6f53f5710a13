"""What choosing the bucket size, racing, stopping early and the pilot do, on a toy with images.

    python -m comfyui_calibri.benchmarks.fewer_images --what stopping --noise 1 --seeds 0-10

The toy of benchmarks/search.py, each image with a noise of its own in units of the initial gap, and
each prompt with an offset. What runs is the product's own course of a calibration with 64 held-out
prompts (calibri/course.py). Prints a JSON line for each setting: medians over the seeds, images of
the whole run (held-out ones included) and the gain of what it recommends, without noise, as a share
of the initial gap. `--what pilot` varies the toy: see TOYS. docs/search.md has results.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..calibri.backbones import Backbone, Tap
from ..calibri.coefficients import coefficient_space
from ..calibri.configuration import RunConfig
from ..calibri.course import Course, Request
from ..calibri.ensemble_space import EnsembleSpace, ensemble_space
from ..calibri.evaluation import Floats, Sample
from ..calibri.journal import Evaluation
from ..calibri.outcome import Outcome
from ..calibri.racing import Drawn, race
from ..calibri.search import PROFILES
from .search import _seeds

HELD_OUT = 64  # prompts
TRAINING = 512
RACES = 100  # for each run, each with noise of its own
# Size, decades of curvature, distance of the optimum; first that of benchmarks/search.py.
TOYS = ((57, 3.0, 0.3), (24, 2.0, 0.3), (114, 3.0, 0.3), (57, 1.0, 0.15), (57, 4.0, 0.5))


@dataclass(frozen=True)
class Toy:
    """A gap to be closed, 1 at the identity: a quadratic in randomly rotated directions."""

    rotation: Floats
    curvature: Floats
    optimum: Floats

    @classmethod
    def make(cls, seed: int, size: int, decades: float, distance: float) -> Toy:
        random = np.random.default_rng(1000 + seed)
        rotation, _ = np.linalg.qr(random.standard_normal((size, size)))
        curvature = 10 ** random.uniform(-decades, 0, size)
        toy = cls(rotation, curvature, 1 + distance * random.standard_normal(size))
        return replace(toy, curvature=curvature / toy.gap(np.ones(size)))

    def gap(self, vectors: Floats) -> Floats:
        """[..., size] to [...]"""
        squares: Floats = ((vectors - self.optimum) @ self.rotation) ** 2
        return (squares * self.curvature).sum(axis=-1)


@dataclass(frozen=True)
class Run:
    """What a run on the toy came to."""

    outcome: Outcome
    gain: float
    """Of what it recommends, true, in initial gaps."""
    images: int


def run(config: RunConfig, toy: Toy, noise: float) -> Run:
    """One calibration of the toy."""
    space, random = toy_space(len(toy.optimum)), np.random.default_rng(config.seed)
    offsets = np.random.default_rng(7).standard_normal(len(config.all_prompts))
    steps = Course(config, space, lambda generation: False).steps()
    images = 0
    answer: Evaluation | None = None
    while True:
        try:
            wanted = steps.send(answer)
        except StopIteration as end:
            outcome: Outcome = end.value
            break
        answer = None
        if isinstance(wanted, Request):
            rewards = noise * random.standard_normal((len(wanted.vectors), len(wanted.bucket)))
            rewards += offsets[[sample.prompt for sample in wanted.bucket]]
            rewards -= toy.gap(wanted.vectors)[:, None]
            images += rewards.size
            vectors, bucket, role = wanted.vectors, wanted.bucket, wanted.role
            answer = Evaluation(0, role, wanted.generation, vectors, bucket, (), rewards, 0.0)
    return Run(outcome, 1 - float(toy.gap(outcome.vector)), images)


def toy_space(size: int) -> EnsembleSpace:
    """A space of so many coefficients."""
    taps = tuple(Tap("single", i, "fused", "joint", "", 0, 1) for i in range(size))
    return ensemble_space(coefficient_space(Backbone("flux", {"single": size}, taps), "block"))


def configuration(**settings: Any) -> RunConfig:
    return RunConfig(
        prompts=tuple(f"a {n}" for n in range(TRAINING)),
        validation_prompts=tuple(f"b {n}" for n in range(HELD_OUT)),
        reward="toy",
        **settings,
    )


def buckets(seeds: range, noise: float, images: int) -> Iterator[dict[str, Any]]:
    """Fixed bucket sizes and the chosen one, at equal images of the search."""
    for size in (0, 2, 4, 8, 16, 32, 64):
        found = []
        for seed in seeds:
            toy = Toy.make(seed, *TOYS[0])
            generations = max(images // (16 * (size or 16)), 3)
            config = configuration(generations=generations, seed=seed, bucket_size=size)
            if not size:  # as many generations as the chosen size leaves
                pilot = run(replace(config, generations=3), toy, noise).outcome.pilot
                assert pilot is not None
                left = max(images - 2 * 16 * 16, 0) // (16 * pilot.bucket_size)
                config = replace(config, generations=2 + max(left, 1))
            found.append(run(config, toy, noise))
        yield {"bucket_size": size, "search_images": images, **_medians(found)}


def stopping(seeds: range, noise: float, generations: int) -> Iterator[dict[str, Any]]:
    """Ending early against going to the budget's end."""
    for early in (False, True):
        config = configuration(generations=generations, bucket_size=0, stop_early=early)
        found = [run(replace(config, seed=seed), Toy.make(seed, *TOYS[0]), noise) for seed in seeds]
        stopped = float(np.mean([run.outcome.stopped is not None for run in found]))
        yield {"stop_early": early, "of": generations, "stopped": stopped, **_medians(found)}


def racing(seeds: range, noise: float, generations: int) -> Iterator[dict[str, Any]]:
    """How many of the images that pick among a run's finalists racing draws, and what it loses."""
    drawn, raced, full, same = [], [], [], []
    for seed in seeds:
        toy = Toy.make(seed, *TOYS[0])
        config = configuration(generations=generations, seed=seed, bucket_size=0)
        finalists = run(config, toy, noise).outcome.finalists
        gains = 1 - toy.gap(np.stack([finalist.vector for finalist in finalists]))
        bucket, random = config.selection_samples(generations), np.random.default_rng(seed)
        for _ in range(RACES):
            rewards = gains[:, None] + noise * random.standard_normal((len(gains), HELD_OUT))
            pick, images = _race(rewards, bucket)
            best = int(rewards.mean(axis=1).argmax())
            drawn.append(images / rewards.size)
            raced.append(gains[pick])
            full.append(gains[best])
            same.append(pick == best)
    yield {
        "of": generations,
        "share_drawn": float(np.mean(drawn)),
        "gain": float(np.mean(raced)),
        "gain_of_all_drawn": float(np.mean(full)),
        "same_pick": float(np.mean(same)),
    }


def _race(rewards: Floats, bucket: tuple[Sample, ...]) -> tuple[int, int]:
    """Who wins a race with these rewards [F, S], and how many images that draws."""
    rounds = race(len(rewards), "selection", bucket)
    wanted, images, at = next(rounds), 0, 0
    while True:
        until = at + len(wanted.bucket)
        part = rewards[list(wanted.entrants), at:until]
        images, at = images + part.size, until
        try:
            wanted = rounds.send(Drawn(part, wanted.bucket))
        except StopIteration as end:
            return end.value.pick, images


def pilots(seeds: range, noise: float, generations: int) -> Iterator[dict[str, Any]]:
    """The gain that came, in units of what the pilot expects, for each of TOYS and profiles."""
    for profile, shape in itertools.product(PROFILES, TOYS):
        inside, lows, highs, gains = [], [], [], []
        for seed in seeds:
            config = configuration(
                generations=generations, seed=seed, bucket_size=0, profile=profile
            )
            ran = run(config, Toy.make(seed, *shape), noise)
            pilot = ran.outcome.pilot
            assert pilot is not None
            inside.append(pilot.low <= ran.gain <= pilot.high)
            lows.append(pilot.low)
            highs.append(pilot.high)
            gains.append(ran.gain)
        yield {
            "profile": profile,
            "toy": shape,
            "of": generations,
            "held": float(np.mean(inside)),
            "low": float(np.median(lows)),
            "high": float(np.median(highs)),
            "gain": float(np.median(gains)),
            "gains": np.round(gains, 3).tolist(),
            "lows": np.round(lows, 3).tolist(),
            "highs": np.round(highs, 3).tolist(),
        }


def _medians(runs: list[Run]) -> dict[str, float]:
    return {
        "generations": float(np.median([run.outcome.generations for run in runs])),
        "images": float(np.median([run.images for run in runs])),
        "gain": float(np.median([run.gain for run in runs])),
        "worst_gain": min(run.gain for run in runs),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    what = {"buckets": buckets, "stopping": stopping, "racing": racing, "pilot": pilots}
    parser.add_argument("--what", choices=what, required=True)
    parser.add_argument("--noise", type=float, default=1.0, help="of an image, in initial gaps")
    parser.add_argument("--seeds", type=_seeds, default=range(11), metavar="A-B")
    parser.add_argument(
        "--of", type=int, default=60, help="generations; with --what buckets, images of the search"
    )
    options = parser.parse_args()
    for row in what[options.what](options.seeds, options.noise, options.of):
        seeds = [options.seeds[0], options.seeds[-1]]
        told = {key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()}
        print(json.dumps({"noise": options.noise, "seeds": seeds, **told}), flush=True)


if __name__ == "__main__":
    main()
