"""Diversity sees seeds that agree, at the scale of composition and not of texture."""

from __future__ import annotations

import numpy as np
import pytest

from comfyui_calibri.calibri.diversity import SIDE, diversity, diversity_ratio


def _flat(*values: int, side: int = 64) -> np.ndarray:
    """One prompt's images [1, S, side, side, 3], each of one grey."""
    rows = [np.full((side, side, 3), value, np.uint8) for value in values]
    return np.stack(rows)[None]


def test_one_picture_for_every_seed_has_no_diversity() -> None:
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
    images = np.broadcast_to(picture, (2, 3, 64, 64, 3))
    assert diversity(images).tolist() == [0.0, 0.0]


def test_black_and_white_are_as_far_apart_as_pictures_get() -> None:
    assert diversity(_flat(0, 255)) == pytest.approx([1.0])


def test_it_is_the_mean_over_pairs_of_seeds() -> None:
    # Distances of 51, 102 and 51 grey levels: 0.2, 0.4 and 0.2.
    assert diversity(_flat(0, 51, 102)) == pytest.approx([0.8 / 3])


def test_each_prompt_is_measured_for_itself() -> None:
    both = np.concatenate([_flat(10, 10), _flat(0, 255)])
    assert diversity(both) == pytest.approx([0.0, 1.0])


def test_texture_below_its_scale_does_not_count() -> None:
    checks = np.indices((64, 64)).sum(axis=0) % 2 * 255
    first = np.repeat(checks[..., None], 3, axis=-1).astype(np.uint8)
    assert diversity(np.stack([first, 255 - first])[None]) == pytest.approx([0.0], abs=1e-6)


def test_a_wide_picture_is_averaged_over_areas_that_fit_it() -> None:
    """Half of a 100 x 48 picture turns white: half of the small one does, fractional edges too."""
    black = np.zeros((48, 100, 3), np.uint8)
    half = black.copy()
    half[:, :50] = 255
    found = diversity(np.stack([black, half])[None])
    assert found == pytest.approx([np.sqrt(0.5)])


def test_small_pictures_are_taken_as_they_are() -> None:
    black = np.zeros((SIDE // 2, SIDE, 3), np.uint8)
    dot = black.copy()
    dot[0, 0, 0] = 255
    found = diversity(np.stack([black, dot])[None])
    assert found == pytest.approx([np.sqrt(1 / black.size)], rel=1e-6)


@pytest.mark.parametrize("shape", [(2, 1, 8, 8, 3), (2, 8, 8, 3), (2, 2, 8, 8, 4)])
def test_what_it_cannot_compare_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least two seeds"):
        diversity(np.zeros(shape, np.uint8))


def test_the_ratio_to_plain_is_paired() -> None:
    plain = np.random.default_rng(0).uniform(0.05, 0.4, size=24)
    exact = diversity_ratio(0.5 * plain, plain)
    assert exact is not None
    assert (exact.mean, exact.low, exact.high) == pytest.approx((0.5, 0.5, 0.5))
    noisy = diversity_ratio(plain * np.tile([0.8, 1.1], 12), plain)
    assert noisy is not None
    assert 0.85 < noisy.low < noisy.mean < noisy.high < 1.05


def test_there_is_no_ratio_to_nothing() -> None:
    assert diversity_ratio(np.ones(4), np.zeros(4)) is None
