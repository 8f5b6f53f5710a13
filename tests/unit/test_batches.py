"""Batches shrink where memory runs out and grow again, as the journal alone says."""

import json
from dataclasses import replace

import pytest

from comfyui_calibri.calibri.batches import TRIED_AGAIN, Shortage, too_many
from comfyui_calibri.calibri.evaluation import BatchTooLargeError
from comfyui_calibri.calibri.journal import Journal

from .exact_run import CONFIG, ExactEvaluator, Interrupted, rows, run, same

LONG = replace(CONFIG, generations=60, validate_every=30)


class Crowded(ExactEvaluator):
    """Has room for 5 images until `freed` batches were drawn, by whatever process, then for all."""

    def __init__(self, freed, stop_at=None):
        super().__init__(batch=16, stop_at=stop_at)
        self.freed, self.failed = freed, []

    def run(self, batch, vectors, bucket):
        if len(batch) > 5 and self.freed(self):
            self.failed.append(len(batch))
            raise BatchTooLargeError(f"{len(batch)} images do not fit")
        return super().run(batch, vectors, bucket)


def sizes(path):
    """The batches' sizes of each generation, in order."""
    with Journal.read(path) as journal:
        found = [
            [len(batch) for batch in _batches(journal, evaluation.id)]
            for evaluation in journal.evaluations("generation")
        ]
        return found, [event.kind for event in journal.events()]


def _batches(journal, evaluation):
    query = "SELECT batch FROM results WHERE evaluation = ? ORDER BY id"
    return [json.loads(batch) for (batch,) in journal._rows(query, (evaluation,))]


def test_a_size_that_failed_is_tried_again_and_more_and_more_rarely():
    assert too_many([]) is None
    first = [too_many([Shortage(8, since)]) for since in range(3 * TRIED_AGAIN)]
    assert first == [8] * TRIED_AGAIN + [16] * TRIED_AGAIN + [32] * TRIED_AGAIN
    assert too_many([Shortage(8, 100 * TRIED_AGAIN)]) is None
    again = [Shortage(8, 40), Shortage(8, TRIED_AGAIN)]
    assert too_many(again) == 8
    assert too_many([again[0], Shortage(8, 2 * TRIED_AGAIN)]) == 16


def test_memory_that_is_free_again_is_used_again(tmp_path):
    evaluator = Crowded(lambda e: len(e.batches) < 100)
    run(tmp_path / "run.sqlite", evaluator, LONG)
    drawn, kinds = sizes(tmp_path / "run.sqlite")
    assert evaluator.failed == [16, 8]  # halves of 4 fit
    assert max(drawn[0]) == 4
    assert drawn[-1] == [16, 16, 16]
    assert kinds.count("out of memory") == 2
    assert kinds.count("larger batches") >= 2


def test_memory_that_stays_short_costs_few_failures(tmp_path):
    evaluator = Crowded(lambda e: True)
    run(tmp_path / "run.sqlite", evaluator, LONG)
    drawn, _ = sizes(tmp_path / "run.sqlite")
    assert max(max(batches) for batches in drawn) <= 5
    # In its more than 60 evaluations: at the start, after 16 and after 32 more; and the finalists'.
    assert evaluator.failed == [16, 8, 8, 8, 6]


@pytest.mark.parametrize("stop", [5, 150, 250, 300])
def test_batches_have_the_same_shapes_whether_or_not_the_run_was_resumed(tmp_path, stop):
    whole = ExactEvaluator(batch=16, memory=5)
    outcome = run(tmp_path / "whole.sqlite", whole, LONG)
    path = tmp_path / "run.sqlite"
    first = ExactEvaluator(batch=16, memory=5, stop_at=stop)
    with pytest.raises(Interrupted):
        run(path, first, LONG)
    second = ExactEvaluator(batch=16, memory=5)
    assert same(run(path, second, LONG), outcome)
    assert first.batches + second.batches == whole.batches
    assert rows(path) == rows(tmp_path / "whole.sqlite")
