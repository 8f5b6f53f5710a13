"""Rank agreement within samples, against Spearman's correlation worked out by hand."""

import math

import numpy as np
import pytest

from comfyui_calibri.calibri.agreement import rank_agreement


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 400], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 3, 2, 4], 0.8),  # 1 - 6 * 2 / (4 * 15)
        ([1, 1, 2, 3], [1, 1, 2, 3], 1.0),
        ([1, 1, 2], [1, 2, 3], math.sqrt(3) / 2),
    ],
)
def test_one_sample_is_spearmans_correlation(first, second, expected):
    agreed = rank_agreement(np.array(first, float), np.array(second, float), [0] * len(first))
    assert agreed == pytest.approx(expected)


def test_what_differs_between_samples_does_not_count():
    samples = [0, 1, 0, 1]
    first = np.array([1.0, 101.0, 2.0, 102.0])
    assert rank_agreement(first, np.array([2.0, 52.0, 1.0, 51.0]), samples) == pytest.approx(-1.0)


def test_no_order_is_no_agreement():
    assert math.isnan(rank_agreement(np.ones(4), np.arange(4.0), [0] * 4))
    assert math.isnan(rank_agreement(np.arange(4.0), np.arange(4.0), [0, 1, 2, 3]))
