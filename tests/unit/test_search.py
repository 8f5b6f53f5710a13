"""The two searches: bounds, determinism, and that they find the optimum of a noisy toy."""

import numpy as np
import pytest

from comfyui_calibri.benchmarks.search import IDENTITY, LOWER, SIZE, UPPER, descend, measure
from comfyui_calibri.calibri.search import PROFILES, create_search


def search(profile: str, seed: int = 0):
    return create_search(profile, IDENTITY, LOWER, UPPER, seed)


def gap_after(profile: str, seed: int, evaluations: int, noise: float) -> float:
    """What is left of the initial gap on the benchmark's toy."""
    return float(descend(search(profile, seed), seed, noise, evaluations).gaps[-1])


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_default_closes_nine_tenths_of_the_gap(noise):
    gaps = [gap_after("default", seed, 960, noise) for seed in range(5)]
    assert np.median(gaps) < 0.1


@pytest.mark.parametrize(("noise", "target"), [(0.0, 1100), (0.03, 1200), (0.1, 1300)])
def test_default_needs_few_evaluations(noise, target):
    found = measure("default", noise, range(700, 711), {})
    needed = found["evaluations_to_5_percent"]
    assert needed is not None
    assert needed <= target


def test_paper_closes_most_of_the_gap():
    gaps = [gap_after("paper", seed, 960, 0.0) for seed in range(3)]
    assert np.median(gaps) < 0.15


def test_default_beats_paper_under_noise():
    noisy = {p: np.median([gap_after(p, s, 640, 0.1) for s in range(3)]) for p in PROFILES}
    assert noisy["default"] < 0.6 * noisy["paper"]


@pytest.mark.parametrize("profile", PROFILES)
def test_candidates_and_mean_stay_within_bounds(profile):
    searched = search(profile)
    for _ in range(60):
        candidates = searched.ask()
        assert candidates.shape == (16, SIZE)
        assert (candidates >= LOWER).all()
        assert (candidates <= UPPER).all()
        searched.tell(candidates.sum(axis=1))
    assert (searched.mean <= UPPER).all()
    assert searched.mean.mean() > 1.2


@pytest.mark.parametrize("profile", PROFILES)
def test_global_random_state_is_neither_used_nor_changed(profile):
    def run(disturb: bool) -> np.ndarray:
        searched = search(profile, seed=5)
        for _ in range(6):
            if disturb:
                np.random.seed(None)
            candidates = searched.ask()
            searched.tell(np.sin(candidates * 7).sum(axis=1))
        return searched.mean

    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    first = run(disturb=False)
    assert (np.random.get_state()[1] == before).all()
    assert (run(disturb=True) == first).all()
    assert not (search(profile, seed=6).ask() == search(profile, seed=5).ask()).all()


def test_paper_settings():
    searched = search("paper")
    assert searched.population == 16
    assert searched.sigma == 0.25
    first = searched.ask()
    assert sum((candidate == 1.0).all() for candidate in first) == 1
    searched.tell(-np.abs(first - 1).sum(axis=1))
    assert not any((candidate == 1.0).all() for candidate in searched.ask())


def test_pairs_mirror_each_other():
    first = search("default").ask()
    inside = (first[:8] > LOWER) & (first[:8] < UPPER) & (first[8:] > LOWER) & (first[8:] < UPPER)
    np.testing.assert_allclose((first[:8] + first[8:])[inside], 2.0, rtol=1e-15)


def test_default_moves_away_from_a_bound():
    searched = create_search("default", UPPER, LOWER, UPPER, seed=1)
    for _ in range(40):
        searched.tell(-searched.ask().sum(axis=1))
    assert searched.mean.mean() < 1.7


def test_a_flat_reward_moves_nothing():
    searched = search("default")
    searched.ask()
    searched.tell(np.full(16, 0.25))
    assert (searched.mean == IDENTITY).all()


def test_unusable_profiles_say_what_to_do():
    with pytest.raises(ValueError, match="choose one of default, paper"):
        search("best")
    with pytest.raises(ValueError, match="finer granularity"):
        create_search("paper", np.ones(1), -np.ones(1), 2 * np.ones(1), 0)
