"""A reward that tells no candidates apart ends the search in a sentence, before it costs nights."""

import pytest

from comfyui_calibri.calibri.evaluation import RewardError
from comfyui_calibri.calibri.journal import Journal

from .exact_run import CONFIG, ExactEvaluator, run


class Blind(ExactEvaluator):
    """Scores the prompt whatever the picture, until it sees."""

    sees = False

    def reward(self, vector, sample):
        return super().reward(vector, sample) if self.sees else 0.3 * sample.prompt


def test_it_is_said_after_two_generations_by_its_name(tmp_path):
    path = tmp_path / "run.sqlite"
    for _ in range(2):  # resumed, it says so again
        with pytest.raises(RewardError, match=r"^test gave all candidates .* 2 times in a row"):
            run(path, Blind())
    with Journal.read(path) as journal:
        begun = {e.generation for e in journal.evaluations() if e.role == "generation"}
    assert begun == {1, 2}


@pytest.mark.parametrize("blind_in", [1, 3])
def test_one_generation_without_a_difference_is_chance(tmp_path, blind_in):
    evaluator, spreads = Blind(), []

    def ended(summary):
        spreads.append(summary.best - summary.worst > 1e-9)
        evaluator.sees = summary.generation + 1 != blind_in

    evaluator.sees = blind_in != 1
    outcome = run(tmp_path / "run.sqlite", evaluator, on_generation=ended)
    assert outcome.generations == CONFIG.generations
    assert spreads == [generation != blind_in for generation in (1, 2, 3)]
