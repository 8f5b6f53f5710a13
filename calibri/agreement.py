"""How far two ways to judge the same images rank candidates alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .evaluation import Floats


def rank_agreement(first: Floats, second: Floats, samples: Sequence[int]) -> float:
    """Spearman's correlation of two judgements [R] of the same images, within their samples.

    `samples[r]` is the prompt and noise that row r was drawn from. What differs between samples is
    taken out first: a search compares candidates on one sample. NaN where all are judged alike.
    """
    ranks = [_ranks(_within(np.asarray(values, np.float64), samples)) for values in (first, second)]
    centred = [values - values.mean() for values in ranks]
    scale = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float((centred[0] * centred[1]).sum() / scale) if scale > 0 else float("nan")


def _within(values: Floats, samples: Sequence[int]) -> Floats:
    of = np.asarray(samples)
    within = values.copy()
    for sample in np.unique(of):
        within[of == sample] -= values[of == sample].mean()
    return within


def _ranks(values: Floats) -> Floats:
    """Ranks from 0; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Floats = ((ends - counts + ends - 1) / 2)[place]
    return ranks
