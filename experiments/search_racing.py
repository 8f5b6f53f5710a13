"""Racing within a generation, which lost: rounds that end early against buckets of one size.

    python -m comfyui_calibri.experiments.search_racing --seeds 0-10 > generations.jsonl

The toy of benchmarks/search.py with a noise for each image. `settled`: a generation is drawn in
rounds of two images for each candidate, until the variance between candidates is reliable to that
share, at most 16. `pairs`: a mirrored pair whose difference is two standard errors from zero is
drawn no more. `largest half`: the pairs that differ most are drawn a second time. A JSON line for
each: the median gap at so many images. docs/search.md has the results in words.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable

import numpy as np

from ..benchmarks.search import IDENTITY, LOWER, UPPER, _seeds, toy
from ..calibri.evaluation import Floats
from ..calibri.pilot import measure_spread
from ..calibri.search import create_search

IMAGES_AT = (1000, 2000, 4000, 8000, 16000)
NOISES = (0.1, 0.3, 1.0, 3.0)
MOST = 16  # images for a candidate

Draw = Callable[[Floats, int], Floats]
"""Rewards [K, S] of true values [K] on so many images each."""
Policy = Callable[[Floats, Draw], tuple[Floats, int]]
"""The means [16] that the search is told, and how many images they took."""


def fixed(size: int) -> Policy:
    def policy(values: Floats, draw: Draw) -> tuple[Floats, int]:
        return draw(values, size).mean(axis=1), len(values) * size

    return policy


def settled(reliable: float) -> Policy:
    def policy(values: Floats, draw: Draw) -> tuple[Floats, int]:
        rewards = draw(values, 2)
        while rewards.shape[1] < MOST:
            spread = measure_spread([rewards])
            seen = float(rewards.mean(axis=1).var(ddof=1))
            if spread is not None and spread.square >= reliable * seen:
                break
            rewards = np.concatenate([rewards, draw(values, 2)], axis=1)
        return rewards.mean(axis=1), rewards.size

    return policy


def pairs(values: Floats, draw: Draw) -> tuple[Floats, int]:
    half = len(values) // 2
    drawn = [draw(values[[i, i + half]], 2) for i in range(half)]
    going = list(range(half))
    while going:
        own = np.concatenate([(d[0] - d[1]) - (d[0] - d[1]).mean() for d in drawn])
        noise = math.sqrt(float((own**2).sum()) / (len(own) - half))
        going = [
            i
            for i in going
            if drawn[i].shape[1] < MOST
            and abs(float((drawn[i][0] - drawn[i][1]).mean()))
            < 2 * noise / math.sqrt(drawn[i].shape[1])
        ]
        for i in going:
            more = draw(values[[i, i + half]], 2)
            drawn[i] = np.concatenate([drawn[i], more], axis=1)
    means = np.array([d.mean(axis=1) for d in drawn])
    return np.concatenate([means[:, 0], means[:, 1]]), sum(d.size for d in drawn)


def largest_half(values: Floats, draw: Draw) -> tuple[Floats, int]:
    half = len(values) // 2
    first = draw(values, 2).mean(axis=1)
    again = np.argsort(-np.abs(first[:half] - first[half:]))[: half // 2]
    both = np.concatenate([again, again + half])
    first[both] = (first[both] + draw(values[both], 2).mean(axis=1)) / 2
    return first, 2 * len(values) + 2 * len(both)


POLICIES: dict[str, Policy] = {
    **{f"fixed, {size}": fixed(size) for size in (2, 4, 8, 16)},
    **{f"settled, {share}": settled(share) for share in (0.5, 0.8)},
    "pairs": pairs,
    "largest half": largest_half,
}


def gaps(policy: Policy, seed: int, noise: float) -> list[float]:
    """The gap left when so many images have been drawn, for each of IMAGES_AT."""
    gap, random = toy(seed), np.random.default_rng(seed)
    search = create_search("default", IDENTITY, LOWER, UPPER, seed)
    images, left = 0, dict.fromkeys(IMAGES_AT, 1.0)

    def draw(values: Floats, size: int) -> Floats:
        rewards: Floats = values[:, None] + noise * random.standard_normal((len(values), size))
        return rewards

    while images < IMAGES_AT[-1]:
        means, drawn = policy(-gap(search.ask()), draw)
        search.tell(means)
        images += drawn
        now = float(gap(search.mean))
        left |= {at: now for at in IMAGES_AT if images <= at}
    return list(left.values())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=_seeds, default=range(11), metavar="A-B")
    options = parser.parse_args()
    for noise in NOISES:
        for name, policy in POLICIES.items():
            median = np.median([gaps(policy, seed, noise) for seed in options.seeds], axis=0)
            told = dict(zip(map(str, IMAGES_AT), np.round(median, 3).tolist(), strict=True))
            print(json.dumps({"policy": name, "noise": noise, "gap_at_images": told}), flush=True)


if __name__ == "__main__":
    main()
