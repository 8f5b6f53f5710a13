"""Judges of a finished run: other rewards and diversity, which may come later."""

from dataclasses import replace

import numpy as np
import pytest

from comfyui_calibri.calibri.configuration import run_record
from comfyui_calibri.calibri.figure import draw_report
from comfyui_calibri.calibri.journal import Journal
from comfyui_calibri.calibri.judging import DIVERSITY, twin
from comfyui_calibri.calibri.report import build_report
from comfyui_calibri.calibri.verdict import judged, objections, verdict

from .exact_run import CONFIG, SPACE, ExactEvaluator, Interrupted, rows, run, same

HELD_OUT = tuple(f"held out {n}" for n in range(20))
PLAIN = replace(CONFIG, generations=8, validation_prompts=HELD_OUT)
JUDGED = replace(PLAIN, judges={"Falls": "1a", DIVERSITY: "", "Level": ""})


class Judged(ExactEvaluator):
    """Two other rewards: one that falls as the search gains, and one that stays."""

    def judge(self, batch, vectors, bucket, judge):
        rewards = self.run(batch, vectors, bucket)
        if judge == "Falls":
            return -rewards
        if judge == DIVERSITY:
            assert all(twin(sample) != sample for sample in bucket)
            return np.array([abs(vectors[c] - 1.2).mean() for c, _ in batch])
        return np.array([bucket[p].seed % 101 / 101 for _, p in batch])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with judges: its outcome, its journal's rows, its batches."""
    path, evaluator = tmp_path_factory.mktemp("whole") / "run.sqlite", Judged()
    outcome = run(path, evaluator, JUDGED)
    assert outcome.generation != 0
    return outcome, rows(path), evaluator.batches


def test_judges_see_the_confirmation_and_the_plain_model(whole):
    outcome, journalled, _ = whole
    falls, spread, level = outcome.judgements
    assert (falls.name, spread.name, level.name) == ("Falls", DIVERSITY, "Level")
    assert spread == outcome.diversity
    assert falls.change.mean == pytest.approx(-outcome.gain.mean)
    assert (falls.before.mean, falls.after.mean) == pytest.approx(
        (-outcome.before.mean, -outcome.after.mean)
    )
    assert (level.change.mean, level.change.low, level.change.high) == (0, 0, 0)
    assert (falls.samples, spread.samples) == (20, 16)
    by_role = {role: (vectors, bucket) for role, _, vectors, bucket, _ in journalled}
    assert by_role["judging Falls 1a"] == by_role["judging Level"] == by_role["confirmation"]
    vectors, bucket = by_role["judging diversity"]
    assert (vectors, bucket) == (by_role["confirmation"][0], by_role["confirmation"][1][:16])
    assert len({sample.prompt for sample in bucket}) == 16


def test_judges_take_no_part_in_the_search(whole, tmp_path):
    outcome, journalled, _ = whole
    assert same(run(tmp_path / "alone.sqlite", config=PLAIN), outcome)
    alone = rows(tmp_path / "alone.sqlite")
    assert [row for row in journalled if not row[0].startswith("judging")] == alone
    assert run_record(JUDGED, SPACE) == run_record(PLAIN, SPACE)


def test_a_judge_that_comes_later_costs_its_own_images_only(whole, tmp_path):
    outcome, journalled, _ = whole
    path = tmp_path / "run.sqlite"
    run(path, config=replace(PLAIN, judges={}))
    first = run(path, Judged(), replace(PLAIN, judges={"Level": ""}))
    assert [found.name for found in first.judgements] == ["Level"]
    later = Judged()
    assert run(path, later, JUDGED).judgements == outcome.judgements
    assert sum(later.batches) == 2 * (20 + 16)
    assert sorted(rows(path)) == sorted(journalled)
    again = Judged()
    assert run(path, again, JUDGED).judgements == outcome.judgements
    assert again.batches == []


def test_other_weights_under_a_name_are_another_judge(whole, tmp_path):
    path = tmp_path / "run.sqlite"
    run(path, Judged(), replace(PLAIN, judges={"Falls": "1a"}))
    again = Judged()
    run(path, again, replace(PLAIN, judges={"Falls": "2b"}))
    assert sum(again.batches) == 40


def test_stopped_while_it_is_judged_it_ends_as_the_uninterrupted_run(whole, tmp_path):
    outcome, journalled, batches = whole
    judging = sum(1 for role, *_ in journalled if role.startswith("judging"))
    assert judging == 3
    for left in range(1, 10):
        path = tmp_path / f"{left}.sqlite"
        first, second = Judged(stop_at=len(batches) - left), Judged()
        with pytest.raises(Interrupted):
            run(path, first, JUDGED)
        resumed = run(path, second, JUDGED)
        assert same(resumed, outcome)
        assert resumed.judgements == outcome.judgements
        assert rows(path) == journalled
        assert first.batches + second.batches == batches


def test_images_are_counted_to_the_end(tmp_path):
    counts = []
    run(tmp_path / "a.sqlite", Judged(), JUDGED, on_batch=lambda *count: counts.append(count))
    assert all(done <= total for done, total in counts)
    evaluated = sum(len(row[4]) // 8 for row in rows(tmp_path / "a.sqlite"))
    assert counts[-2] == (evaluated, counts[-1][1])


def test_a_judge_that_fails_is_named_and_loses_nothing(whole, tmp_path):
    class Broken(Judged):
        def judge(self, batch, vectors, bucket, judge):
            found = super().judge(batch, vectors, bucket, judge)
            return found * np.nan if judge == "Level" else found

    path = tmp_path / "run.sqlite"
    without = run(path, Broken(), JUDGED)
    assert same(without, whole[0])
    assert [found.name for found in without.judgements] == ["Falls", DIVERSITY]
    assert list(without.failed_judges) == ["Level"]
    *_, said = judged(without)
    assert said.startswith("Level did not judge the result: The reward Level returned nan")
    with Journal.read(path) as journal:
        assert build_report(without, SPACE, journal)["failed_judges"] == without.failed_judges
    # Mended, it is all that is asked.
    mended = Judged()
    assert run(path, mended, JUDGED).judgements == whole[0].judgements
    assert sum(mended.batches) == 40


def test_an_interrupt_while_it_is_judged_is_no_judges_failure(tmp_path):
    class Cancelled(Judged):
        def judge(self, batch, vectors, bucket, judge):
            raise Interrupted

    with pytest.raises(Interrupted):
        run(tmp_path / "run.sqlite", Cancelled(), JUDGED)


class PlainIsBest(Judged):
    def reward(self, vector, sample):
        return -((vector - 1) ** 2).sum() + 0.01 * (sample.seed % 101)


def test_where_nothing_helps_nobody_judges(tmp_path):
    outcome = run(tmp_path / "run.sqlite", PlainIsBest(), JUDGED)
    assert (outcome.generation, outcome.judgements) == (0, ())
    assert verdict(outcome, "test", 20).startswith("Nothing that 8 generations found was better")
    assert objections(outcome, "test") == []


def test_what_was_found_is_kept_anyway_where_that_is_asked_for(tmp_path):
    path = tmp_path / "run.sqlite"
    run(path, PlainIsBest(), PLAIN)
    kept = run(path, PlainIsBest(), replace(JUDGED, keep_anyway=True))
    assert kept.generation != 0
    assert kept.kept_anyway
    assert kept.gain.high < 0
    assert len(kept.judgements) == 3
    best = max(kept.finalists[1:], key=lambda finalist: finalist.selection)
    assert kept.generation == best.generation
    assert "It was not seen to be better than the plain model" in verdict(kept, "test", 20)
    # Asked for no longer, the plain model is recommended again, and without new images.
    again = PlainIsBest()
    assert run(path, again, PLAIN).generation == 0
    assert again.batches == []


def test_a_fall_and_a_collapse_are_said(whole):
    outcome, _, _ = whole
    exploited, collapsed = objections(outcome, "test")
    assert exploited.startswith("Falls fell by ")
    assert "while test rose: the preset may exploit test" in exploited
    assert "Level" not in exploited
    assert "more alike than the plain model's" in collapsed
    assert verdict(outcome, "test", 20).endswith(f"of {outcome.generations}.")


def test_a_gain_that_was_not_shown_is_not_claimed(whole):
    outcome = whole[0]
    chance = replace(outcome, gain=replace(outcome.gain, low=-0.01))
    assert "No gain was shown: the interval is not above 0." in verdict(chance, "test", 20)
    (said, _) = objections(chance, "test")
    assert "and test was not seen to rise" in said
    assert "exploit" not in said


def test_the_report_has_a_row_for_each_judge_and_what_they_object(whole, tmp_path):
    outcome = whole[0]
    run(tmp_path / "run.sqlite", Judged(), JUDGED)
    with Journal.read(tmp_path / "run.sqlite") as journal:
        report = build_report(outcome, SPACE, journal)
        alone = build_report(replace(outcome, judgements=()), SPACE, journal)
    assert [judge["name"] for judge in report["judges"]] == ["Falls", DIVERSITY, "Level"]
    assert report["judges"][0]["change"]["high"] < 0
    assert report["objections"] == objections(outcome, "test")
    assert (report["gain_shown"], report["kept_anyway"]) == (True, False)
    assert report["verdict"].startswith("test on 20 held-out prompts")
    picture = draw_report(report)
    # Headings, four rows and at least two lines of objections.
    assert picture.shape[0] - draw_report(alone).shape[0] > 7 * 20
