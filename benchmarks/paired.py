"""Ratios that a noisy machine cannot bend: two functions in turn, pair by pair.

Each pair runs both, the order alternating, so that whatever slows the machine slows both. A pair
gives one ratio; the median over pairs is reported with a bootstrap interval of that median.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

RESAMPLES = 2000
WARM_UP = 3  # pairs: allocators, caches, autotuning


@dataclass(frozen=True)
class Ratio:
    """`other` against `plain`, 1.0 being equally fast."""

    median: float
    low: float  # 95 % interval of the median
    high: float
    plain_ms: float  # median of one call
    other_ms: float
    pairs: int


def cpu_clock() -> Callable[[], float]:
    """Seconds for work on the CPU.

    Where one thread does all of it, its own time, which leaves out what other processes take.
    """
    return time.thread_time if torch.get_num_threads() == 1 else time.perf_counter


def paired_ratio(
    plain: Callable[[], object],
    other: Callable[[], object],
    pairs: int,
    finish: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Ratio:
    """Time `pairs` pairs of calls with `clock`, which gives seconds.

    `finish` waits for a device that works on after the call.
    """
    seconds = np.empty((pairs + WARM_UP, 2))
    functions = (plain, other)
    for pair in range(len(seconds)):
        for which in (0, 1) if pair % 2 else (1, 0):
            finish()
            started = clock()
            functions[which]()
            finish()
            seconds[pair, which] = clock() - started
    seconds = seconds[WARM_UP:]
    ratios = seconds[:, 1] / seconds[:, 0]
    drawn = np.random.default_rng(0).integers(pairs, size=(RESAMPLES, pairs))
    low, high = np.quantile(np.median(ratios[drawn], axis=1), (0.025, 0.975))
    plain_ms, other_ms = 1000.0 * np.median(seconds, axis=0)
    return Ratio(
        *(float(value) for value in (np.median(ratios), low, high, plain_ms, other_ms)), pairs
    )
