"""A reward that tells no candidates apart is said, by its name, and never stops a run."""

import pytest

from comfyui_calibri.calibri.journal import Journal
from comfyui_calibri.calibri.session import Session
from comfyui_calibri.calibri.verdict import objections

from .exact_run import CONFIG, SPACE, ExactEvaluator, Interrupted, run

WARNING = "test gave all candidates of a generation the same score, 2 times in a row"


class Blind(ExactEvaluator):
    """Scores the prompt whatever the picture, until it sees."""

    sees = False

    def reward(self, vector, sample):
        return super().reward(vector, sample) if self.sees else 0.3 * sample.prompt


def test_it_is_said_from_the_second_generation_on_and_at_the_end(tmp_path):
    heard = []
    outcome = run(
        tmp_path / "run.sqlite",
        Blind(),
        on_generation=lambda summary: heard.append(summary.warning),
    )
    assert heard[0] == ""
    assert [said.startswith(WARNING) for said in heard] == [False, True, True]
    assert objections(outcome, "test") == [heard[-1]]


def test_with_a_reward_that_works_the_run_goes_on_and_nothing_is_said(tmp_path):
    path, heard = tmp_path / "run.sqlite", []
    whole = Blind()
    run(tmp_path / "whole.sqlite", whole)
    with pytest.raises(Interrupted):
        run(path, Blind(stop_at=len(whole.batches) // 2))
    with Journal.open(path) as journal:
        mended = Blind()
        mended.sees = True
        session = Session(CONFIG, SPACE, mended, journal, heard.append)
        while session.advance():
            pass
    assert heard[-1].warning == ""
    assert objections(session.outcome, "test") == []


@pytest.mark.parametrize("blind_in", [1, 3])
def test_one_generation_without_a_difference_is_chance(tmp_path, blind_in):
    evaluator, said, spreads = Blind(), [], []

    def ended(summary):
        said.append(summary.warning)
        spreads.append(summary.best - summary.worst > 1e-9)
        evaluator.sees = summary.generation + 1 != blind_in

    evaluator.sees = blind_in != 1
    run(tmp_path / "run.sqlite", evaluator, on_generation=ended)
    assert spreads == [generation != blind_in for generation in (1, 2, 3)]
    assert said == ["", "", ""]
