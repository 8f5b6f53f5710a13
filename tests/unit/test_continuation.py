"""What a journal has found, and a search that cannot be recomputed."""

from dataclasses import replace

import numpy as np
import pytest

from comfyui_calibri.calibri.continuation import best_mean, found_preset
from comfyui_calibri.calibri.ensemble_space import ensemble_space
from comfyui_calibri.calibri.journal import Journal, JournalError
from comfyui_calibri.calibri.preset_metadata import Guidance
from comfyui_calibri.calibri.replay import ReplayError
from comfyui_calibri.calibri.selection import START
from comfyui_calibri.calibri.session import Session
from comfyui_calibri.calibri.warm_start import warm_start

from .exact_run import COEFFICIENTS, CONFIG, SPACE, ExactEvaluator, Interrupted, run

FIVE = replace(CONFIG, generations=5)


def equal(found, generation, vector):
    return found[0] == generation and (found[1] == vector).all()


def test_before_the_first_validation_nothing_is_found(tmp_path):
    with Journal.open(tmp_path / "run.sqlite") as journal:
        session = Session(FIVE, SPACE, ExactEvaluator(batch=2), journal)
        assert best_mean(journal) is None
        session.advance()  # two of three images
        assert best_mean(journal) is None
        session.advance()
        assert equal(best_mean(journal), 0, SPACE.identity)


def test_the_means_of_a_search_that_runs(tmp_path):
    with Journal.open(tmp_path / "run.sqlite") as journal:
        session = Session(FIVE, SPACE, ExactEvaluator(), journal)
        while session.generation < 5:
            session.advance()
            if (best := session.best()) is not None:
                assert equal(best_mean(journal), best.generation, best.vector)
        assert best is not None


def test_a_run_that_ended_has_found_what_it_recommends(tmp_path):
    class Fickle(ExactEvaluator):
        """Likes the plain model in validation, and others afterwards."""

        def reward(self, vector, sample):
            plain = (vector == SPACE.identity).all()
            return float(plain and sample.seed in validated) - 0.1 * plain + vector[0] * 1e-3

    validated = {sample.seed for sample in FIVE.validation_samples()}
    outcome = run(tmp_path / "run.sqlite", Fickle(), FIVE)
    assert outcome.generation > 0
    with Journal.open(tmp_path / "run.sqlite") as journal:
        assert equal(best_mean(journal), outcome.generation, outcome.vector)
        session = Session(replace(FIVE, generations=6), SPACE, Fickle(), journal)
        session.advance()
        assert equal(best_mean(journal), 0, SPACE.identity)


def test_a_warm_start_is_found_before_the_first_generation(tmp_path):
    start = np.full(len(COEFFICIENTS.names), 1.2)
    space = ensemble_space(COEFFICIENTS, start=start)
    with Journal.open(tmp_path / "run.sqlite") as journal:
        Session(FIVE, space, ExactEvaluator(), journal).advance()
        assert equal(best_mean(journal), START, start)


@pytest.mark.parametrize(
    "space",
    [SPACE, ensemble_space(COEFFICIENTS, 3), ensemble_space(COEFFICIENTS, 2, Guidance(3.0))],
    ids=["one", "three", "guided"],
)
def test_a_new_run_begins_at_what_another_has_found(tmp_path, space):
    with Journal.open(tmp_path / "run.sqlite") as journal:
        session = Session(FIVE, space, ExactEvaluator(), journal)
        assert found_preset(journal, COEFFICIENTS.backbone) is None
        while session.best() is None or session.best().generation == 0:
            session.advance()
        preset = found_preset(journal, COEFFICIENTS.backbone)
        start = warm_start(preset, COEFFICIENTS, space.members, space.guidance)
        assert start == pytest.approx(session.best().vector, abs=1e-6)


def test_what_was_found_on_another_kind_of_model_is_refused(tmp_path):
    run(tmp_path / "run.sqlite")
    with Journal.read(tmp_path / "run.sqlite") as journal:
        backbone = COEFFICIENTS.backbone
        for other in (
            replace(backbone, family="sd3"),
            replace(backbone, blocks={"double": 1, "single": 3}, taps=backbone.taps[4:]),
        ):
            with pytest.raises(JournalError, match=r"a flux model with 11 coefficients.*connect a"):
                found_preset(journal, other)


@pytest.mark.parametrize("profile", ["default", "paper"])
@pytest.mark.parametrize(
    ("now", "cause"),
    [
        ({"ComfyUI": "0.3.64"}, "this machine computes otherwise. Go on where it began, or begin"),
        # The search is not computed on what draws.
        ({"ComfyUI": "0.3.64", "device": "cuda"}, "this machine computes otherwise"),
        ({"ComfyUI": "0.33.0"}, r"since the run began ComfyUI \(0.3.64, now 0.33.0\) changed"),
        ({}, r"ComfyUI \(0.3.64, now absent\)"),
    ],
)
def test_a_search_that_replays_differently_is_refused(tmp_path, monkeypatch, profile, now, cause):
    config = replace(FIVE, profile=profile)
    path = tmp_path / "run.sqlite"
    with pytest.raises(Interrupted):
        run(path, ExactEvaluator(stop_at=18), config, versions={"ComfyUI": "0.3.64"})

    class OtherNumbers:
        def __init__(self, bits):
            self.standard_normal = lambda shape: np.full(shape, 0.5)

    monkeypatch.setattr(np.random, "Generator", OtherNumbers)
    with pytest.raises(ReplayError, match=cause) as raised:
        run(path, config=config, versions=now)
    assert "differs by up to" in str(raised.value)
    assert "a new run from the best validated mean" in str(raised.value)
    monkeypatch.undo()
    with Journal.open(path) as journal:
        assert best_mean(journal) is not None
        # Refused before anything was spent: what the run began with goes on.
        Session(config, SPACE, ExactEvaluator(), journal, versions={"ComfyUI": "0.3.64"}).advance()


def test_a_search_of_another_population_is_refused(tmp_path, monkeypatch):
    from comfyui_calibri.calibri.search import AntitheticSearch

    path = tmp_path / "run.sqlite"
    with pytest.raises(Interrupted):
        run(path, ExactEvaluator(stop_at=3))
    monkeypatch.setattr(AntitheticSearch, "population", 8)
    with pytest.raises(ReplayError, match=r"has shape \(8, 11\), not \(16, 11\)"):
        run(path)
