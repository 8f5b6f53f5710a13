"""Ending a search early: when its validations promise little, and how it is taken back."""

from dataclasses import replace

import numpy as np
import pytest

from comfyui_calibri.calibri.budget import STOPPED_EARLY
from comfyui_calibri.calibri.journal import Journal
from comfyui_calibri.calibri.stopping import LEAST, prospect

from .exact_run import CONFIG, ExactEvaluator, Interrupted, rows, run, same


def validations(gain, time, noise, prompts=64, at=range(0, 61, 10), seed=0):
    """Mean rewards per prompt along the curve gain g / (g + time)."""
    random = np.random.default_rng(seed)
    own = 3 * random.standard_normal(prompts)
    return {g: own + gain * g / (g + time) + noise * random.standard_normal(prompts) for g in at}


@pytest.mark.parametrize(("time", "over"), [(2.0, True), (40.0, False)])
def test_a_curve_that_is_flat_ends_and_one_that_rises_goes_on(time, over):
    found = prospect(validations(1.0, time, 0.02), 120)
    assert found.is_over is over
    assert found.rate == pytest.approx(time / (60 + time), abs=0.05)
    assert found.gained.mean == pytest.approx(60 / (60 + time), abs=0.1)
    assert found.further == pytest.approx(120 / (120 + time) - 60 / (60 + time), abs=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_where_noise_hides_the_gain_it_goes_on(seed):
    assert not prospect(validations(0.1, 2.0, 3.0, seed=seed), 120).is_over


@pytest.mark.parametrize(("at", "generations"), [((0, 10, 20, 30), 60), ((0, 10, 20, 30, 40), 40)])
def test_too_few_validations_and_a_spent_budget_say_nothing(at, generations):
    assert prospect(validations(1.0, 2.0, 0.02, at=at), generations) is None


def test_rewards_without_any_noise_say_nothing():
    assert prospect({g: np.full(4, float(g > 0)) for g in range(6)}, 60) is None


class Quick(ExactEvaluator):
    """Has gained all there is to gain within a few generations, give or take a little noise."""

    def reward(self, vector, sample):
        noise = np.random.default_rng(sample.seed).standard_normal()
        return min(float((vector - 1).sum()), 0.4) + 1e-3 * noise * float(vector[0])


EARLY = replace(
    CONFIG, generations=60, stop_early=True, validation_prompts=tuple("qrstuvwxyz"), bucket_size=2
)


def test_it_ends_early_says_why_and_raising_generations_goes_on(tmp_path):
    path = tmp_path / "run.sqlite"
    outcome = run(path, Quick(), EARLY)
    assert 8 <= outcome.generations < 60
    assert outcome.stopped.generation == outcome.generations
    assert outcome.stopped.rate < LEAST
    assert f"after {outcome.generations} of 60 generations" in outcome.stopped.sentence
    with Journal.read(path) as journal:
        assert STOPPED_EARLY in [event.kind for event in journal.events()]

    # Asked again it is the same run at the same end.
    again = Quick()
    assert same(run(path, again, EARLY), outcome)
    assert again.batches == []

    longer = run(path, Quick(), replace(EARLY, generations=62))
    assert (longer.generations, longer.stopped) == (62, None)
    run(tmp_path / "whole.sqlite", Quick(), replace(EARLY, generations=62, stop_early=False))
    assert searched(path) == searched(tmp_path / "whole.sqlite")


def test_raised_before_the_run_has_finished_it_goes_on_all_the_same(tmp_path):
    path, whole = tmp_path / "run.sqlite", Quick()
    ended = run(tmp_path / "whole.sqlite", whole, EARLY)
    with pytest.raises(Interrupted):  # in the confirmation
        run(path, Quick(stop_at=len(whole.batches) - 1), EARLY)
    longer = run(path, Quick(), replace(EARLY, generations=62))
    assert (longer.generations, longer.stopped) == (62, None)
    assert ended.generations < 60


def test_raised_after_its_budget_was_spent_it_goes_on_for_a_validation_at_least(tmp_path):
    path = tmp_path / "run.sqlite"
    config = replace(EARLY, generations=20)
    assert run(path, Quick(), replace(config, stop_early=False)).generations == 20
    longer = run(path, Quick(), replace(config, generations=40))
    assert longer.generations == longer.stopped.generation == 22


def test_turned_off_it_goes_on_where_it_ended(tmp_path):
    path = tmp_path / "run.sqlite"
    config = replace(EARLY, generations=30)
    assert run(path, Quick(), config).stopped is not None
    assert run(path, Quick(), replace(config, stop_early=False)).generations == 30


def test_an_interrupted_run_ends_where_the_uninterrupted_one_does(tmp_path):
    whole = Quick()
    outcome = run(tmp_path / "whole.sqlite", whole, EARLY)
    for stop in (3, len(whole.batches) // 2, len(whole.batches) - 1):
        path = tmp_path / f"{stop}.sqlite"
        first = Quick(stop_at=stop)
        with pytest.raises(Interrupted):
            run(path, first, EARLY)
        assert same(run(path, Quick(), EARLY), outcome)
        assert rows(path) == rows(tmp_path / "whole.sqlite")


def searched(path):
    """The generations of a run, whatever was compared at its ends."""
    return [row for row in rows(path) if row[0] == "generation"]


@pytest.mark.parametrize("seed", range(4))
def test_validations_that_fell_are_never_told_as_a_gain(seed):
    fell = prospect(validations(-0.3, 2.0, 0.02, seed=seed), 120)
    assert fell.is_over
    assert "held-out prompts have not risen but fallen: -0.2" in fell.sentence
    assert "is gained" not in fell.sentence
    # Less than noise explains ends nothing.
    for noise in (1.0, 3.0):
        hidden = prospect(validations(-0.1, 2.0, noise, seed=seed), 120)
        assert hidden.gained.mean > 0 or not hidden.is_over
