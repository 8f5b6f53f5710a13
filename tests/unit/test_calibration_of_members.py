"""The loop over several members: where it begins, what it may recommend, and that it resumes."""

import json
from dataclasses import replace

import numpy as np
import pytest

from comfyui_calibri.calibri.calibration import calibrate
from comfyui_calibri.calibri.ensemble_space import ensemble_space
from comfyui_calibri.calibri.figure import draw_report
from comfyui_calibri.calibri.journal import Journal, JournalError
from comfyui_calibri.calibri.preset_metadata import Guidance
from comfyui_calibri.calibri.report import build_report
from comfyui_calibri.calibri.search import PROFILES, create_search
from comfyui_calibri.calibri.selection import START

from .exact_run import COEFFICIENTS, CONFIG, ExactEvaluator, Interrupted, rows, same

N = len(COEFFICIENTS.names)
TWO = ensemble_space(COEFFICIENTS, 2)
GUIDED = ensemble_space(COEFFICIENTS, 2, Guidance(3.0))
WARM = ensemble_space(
    COEFFICIENTS, 2, None, np.concatenate([np.full(N, 1.15), np.full(N, 1.1), [0.6, 0.4]])
)
SPACES = {"two": TWO, "guided": GUIDED, "warm": WARM}


class Weighted(ExactEvaluator):
    """Likes the weighted sum of the members' coefficients to be near the optimum."""

    def reward(self, vector, sample):
        weights = vector[2 * N :]
        return super().reward(weights @ vector[: 2 * N].reshape(2, N), sample)


def run(path, space, evaluator=None, config=CONFIG, **callbacks):
    with Journal.open(path) as journal:
        return calibrate(config, space, evaluator or Weighted(), journal, **callbacks)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_coordinates_vary_by_their_deviation_around_the_start(profile, space):
    search = create_search(
        profile, space.start, space.lower, space.upper, 3, space.deviation * 0.05
    )
    assert (search.mean == space.start).all()
    found = np.concatenate([search.ask() for _ in range(40)]) - space.start
    scale = found.std(axis=0) / (search.sigma * space.deviation * 0.05)
    assert scale.min() > 0.85
    assert scale.max() < 1.15


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_weights_stay_within_their_bounds(profile, space):
    wide = replace_deviation(space, 20.0)
    search = create_search(profile, wide.start, wide.lower, wide.upper, 3, wide.deviation)
    for _ in range(20):
        candidates = search.ask()
        assert (candidates >= wide.lower).all()
        assert (candidates <= wide.upper).all()
        search.tell(candidates[:, -1])
    assert (search.mean <= wide.upper).all()
    assert search.mean[-1] > space.start[-1]


def replace_deviation(space, factor):
    return replace(space, deviation=space.deviation * factor)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_stopped_anywhere_it_ends_as_the_uninterrupted_run(tmp_path, space, profile):
    config = replace(CONFIG, profile=profile, generations=2)
    whole = Weighted()
    outcome = run(tmp_path / "whole.sqlite", space, whole, config)
    expected = rows(tmp_path / "whole.sqlite")
    for stop in range(0, len(whole.batches), 3):
        path = tmp_path / f"{stop}.sqlite"
        with pytest.raises(Interrupted):
            run(path, space, Weighted(stop_at=stop), config)
        assert same(run(path, space, config=config), outcome)
        assert rows(path) == expected


def test_the_plain_model_and_the_start_are_validated_and_finalists(tmp_path):
    counts = []
    outcome = run(tmp_path / "run.sqlite", WARM, on_batch=lambda *count: counts.append(count))
    generations = [finalist.generation for finalist in outcome.finalists]
    assert generations[:2] == [0, START]
    assert (outcome.finalists[0].vector == WARM.identity).all()
    assert (outcome.finalists[1].vector == WARM.start).all()
    assert outcome.generation != 0  # the start was better already
    assert counts[-1][0] == counts[-2][0] == counts[-1][1]  # as many images as foretold
    with Journal.read(tmp_path / "run.sqlite") as journal:
        (first, *_) = journal.evaluations("validation")
    assert (first.vectors == [WARM.identity, WARM.start]).all()


def test_a_start_that_was_not_bettered_is_recommended(tmp_path):
    class StartIsBest(Weighted):
        def reward(self, vector, sample):
            return -((vector - WARM.start) ** 2).sum()

    outcome = run(tmp_path / "run.sqlite", WARM, StartIsBest())
    assert outcome.generation == START
    assert (outcome.vector == WARM.start).all()
    assert outcome.gain.low > 0


def test_a_start_worse_than_the_plain_model_is_not_recommended(tmp_path):
    class IdentityIsBest(Weighted):
        def reward(self, vector, sample):
            return -((vector - WARM.identity) ** 2).sum()

    outcome = run(tmp_path / "run.sqlite", WARM, IdentityIsBest())
    assert outcome.generation == 0
    assert (outcome.vector == WARM.identity).all()


@pytest.mark.parametrize("other", [GUIDED, WARM, ensemble_space(COEFFICIENTS)])
def test_a_journal_goes_on_only_with_its_own_members_and_start(tmp_path, other):
    run(tmp_path / "run.sqlite", TWO)
    with pytest.raises(JournalError, match="belongs to a run with other settings"):
        run(tmp_path / "run.sqlite", other)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_the_report_has_every_member_and_the_start(tmp_path, space):
    outcome = run(tmp_path / "run.sqlite", space)
    with Journal.read(tmp_path / "run.sqlite") as journal:
        report = json.loads(json.dumps(build_report(outcome, space, journal)))
    members = report["recommended"]["members"]
    assert [member["weight"] for member in members] == outcome.vector[-2:].tolist()
    for member, row in zip(members, outcome.vector[:-2].reshape(2, N), strict=True):
        assert list(member["coefficients"].items()) == list(
            zip(COEFFICIENTS.names, row, strict=True)
        )
    assert report["plain_weights"] == space.identity[-2:].tolist()
    generations = [row["generation"] for row in report["validations"]]
    assert generations == ([0, START, 2, 3] if space is WARM else [0, 2, 3])
    assert report["validations"][0]["gain"]["mean"] == 0
    picture = draw_report(report)
    # A change of either member's coefficients or of a weight is seen.
    members[1]["coefficients"]["single.0.fused.joint"] = 1.9
    changed = draw_report(report)
    members[1]["weight"] += 1.0
    assert not (picture == changed).all()
    assert not (changed == draw_report(report)).all()
