"""Searching an ensemble on a toy: where it begins and how far each number varies matter.

The toy is that of test_search.py with a prediction in it: a model predicts v(s) in 120 dimensions
from 57 coefficients s, linear ones of three decades and mixed ones through tanh; moving all
coefficients independently by 1 moves v by about its own length. The reward is minus the squared
distance of Σ w_m v(s_m) from such a sum at hidden coefficients and weights, 1 at the plain model.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from comfyui_calibri.calibri.backbones import Backbone, Tap
from comfyui_calibri.calibri.coefficients import coefficient_space
from comfyui_calibri.calibri.ensemble_space import EnsembleSpace, ensemble_space
from comfyui_calibri.calibri.preset_metadata import Guidance
from comfyui_calibri.calibri.search import create_search

SIZE, OUTPUTS, FEATURES = 57, 120, 80
COEFFICIENTS = coefficient_space(
    Backbone(
        "toy", {"single": SIZE}, tuple(Tap("single", i, "fused", "", "", 0, 1) for i in range(SIZE))
    ),
    "gate",
)
TWO = ensemble_space(COEFFICIENTS, 2)


GUIDED = ensemble_space(COEFFICIENTS, 2, Guidance(7.0))


class Toy:
    """A model, and the hidden members and weights that its reward is best at."""

    def __init__(self, seed: int) -> None:
        self.seed, self.random = seed, np.random.default_rng(1000 + seed)
        outward, _ = np.linalg.qr(self.normal(OUTPUTS, SIZE))
        inward, _ = np.linalg.qr(self.normal(SIZE, SIZE))
        self.linear = unit((outward * 10 ** (self.random.uniform(-3, 0, SIZE) / 2)) @ inward)
        self.plain = unit(self.normal(OUTPUTS))
        self.mixed = 0.5 * unit(self.normal(FEATURES, OUTPUTS))
        self.mix = self.normal(SIZE, FEATURES) * 3 / SIZE**0.5
        self.shift = self.normal(FEATURES)
        # What a second condition changes in the second member's predictions.
        self.other, self.change = np.zeros(OUTPUTS), np.zeros((OUTPUTS, SIZE))

    def normal(self, *shape: int) -> np.ndarray:
        return self.random.standard_normal(shape)

    def aim_at(self, best: np.ndarray, space: EnsembleSpace, weights: list[float]) -> None:
        """Let the reward be best at these members [2, SIZE]."""
        self.target = np.array(weights) @ self.predict(best[None])[0]
        self.first_gap = 1.0
        self.first_gap = self.gap(space, space.identity[None]).item()

    def predict(self, coefficients: np.ndarray) -> np.ndarray:
        """The members' predictions [K, M, OUTPUTS] with coefficients [K, M, SIZE]."""
        away = coefficients - 1
        mixed = np.tanh(away @ self.mix + self.shift) - np.tanh(self.shift)
        found = self.plain + away @ self.linear.T + mixed @ self.mixed
        found[:, 1:] += self.other + away[:, 1:] @ self.change.T
        return found

    def gap(self, space: EnsembleSpace, vectors: np.ndarray) -> np.ndarray:
        gains, weights = space.expand(vectors)
        weights = np.ones((len(vectors), 1)) if weights is None else weights
        found = np.einsum("km,kmp->kp", weights, self.predict(gains))
        return ((found - self.target) ** 2).sum(axis=1) / self.first_gap


def unit(array: np.ndarray) -> np.ndarray:
    return array / np.linalg.norm(array)


def ensemble_toy(seed: int) -> Toy:
    toy = Toy(seed)
    toy.aim_at(1 + 0.3 * toy.normal(2, SIZE), TWO, [0.6, 0.4])
    return toy


def guided_toy(seed: int, apart: float) -> Toy:
    """Classifier-free guidance at 7; the best coefficients lie `apart` from what they share."""
    toy = Toy(seed)
    toy.other, toy.change = 0.2 * unit(toy.normal(OUTPUTS)), 0.15 * unit(toy.normal(OUTPUTS, SIZE))
    shared, difference = 0.3 * toy.normal(2, SIZE)
    best = 1 + np.stack([shared + apart * difference, shared - apart * difference])
    toy.aim_at(best, GUIDED, [7.0, -6.0])
    return toy


def searched(
    toy: Toy, space: EnsembleSpace, evaluations: int, noise: float, profile: str = "default"
) -> np.ndarray:
    """The search's last mean; a generation's candidates share an offset of std 1."""
    random = np.random.default_rng(toy.seed)
    search = create_search(
        profile, space.start, space.lower, space.upper, toy.seed, space.deviation
    )
    for _ in range(evaluations // search.population):
        candidates = search.ask()
        noisy = noise * random.standard_normal(len(candidates))
        search.tell(-toy.gap(space, candidates) + random.standard_normal() + noisy)
    return search.mean


def median_gap(
    space_of: Callable[[Toy], EnsembleSpace], evaluations: int, noise: float, **search: str
) -> float:
    """What is left of the first gap; the median of seven toys."""
    gaps = []
    for toy in map(ensemble_toy, range(7)):
        space = space_of(toy)
        gaps.append(toy.gap(space, searched(toy, space, evaluations, noise, **search)[None])[0])
    return float(np.median(gaps))


def with_weight_deviation(deviation: float) -> EnsembleSpace:
    deviations = TWO.deviation.copy()
    deviations[-2:] = deviation
    return replace(TWO, deviation=deviations)


@pytest.mark.parametrize(("profile", "noise"), [("default", 0.0), ("default", 0.1), ("paper", 0.1)])
def test_weights_with_the_branches_deviation_harm_the_search(profile: str, noise: float) -> None:
    same = median_gap(lambda _: with_weight_deviation(1.0), 960, noise, profile=profile)
    own = median_gap(lambda _: TWO, 960, noise, profile=profile)
    assert own < 0.7 * same


def test_copies_that_share_the_weight_beat_members_without() -> None:
    idle = replace(TWO, start=TWO.identity)
    gaps = [median_gap(lambda _, s=s: s, 1920, 0.0) for s in (TWO, idle)]
    assert gaps[0] < 0.85 * gaps[1]


def test_a_second_member_closes_what_one_cannot() -> None:
    one = ensemble_space(COEFFICIENTS)
    found = {seed: searched(ensemble_toy(seed), one, 960, 0.1) for seed in range(7)}

    def shared(toy: Toy) -> EnsembleSpace:
        vector = np.concatenate([found[toy.seed], found[toy.seed], [0.5, 0.5]])
        return ensemble_space(COEFFICIENTS, 2, start=vector)

    def idle(toy: Toy) -> EnsembleSpace:
        vector = np.concatenate([found[toy.seed], found[toy.seed], [1.0, 0.0]])
        return ensemble_space(COEFFICIENTS, 2, start=vector)

    def alone(toy: Toy) -> EnsembleSpace:
        return ensemble_space(COEFFICIENTS, start=found[toy.seed])

    gaps = [median_gap(begun, 960, 0.1) for begun in (shared, idle, alone)]
    assert gaps[0] < 0.8 * min(gaps[1:])


@pytest.mark.parametrize(("apart", "worse"), [(0.1, 1.0), (0.3, 1 / 7)])
def test_guided_members_vary_between_the_extremes(apart: float, worse: float) -> None:
    """What is best where the members' best coefficients hardly differ is bad where they do."""
    toys = [guided_toy(seed, apart) for seed in range(7)]
    deviations = np.concatenate([np.full(2 * SIZE, worse), GUIDED.deviation[-2:]])
    gaps = [
        np.median([toy.gap(space, searched(toy, space, 960, 0.1)[None]) for toy in toys])
        for space in (GUIDED, replace(GUIDED, deviation=deviations))
    ]
    assert gaps[0] < 0.7 * gaps[1]
