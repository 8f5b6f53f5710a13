"""A run that was stopped anywhere, even by kill -9, ends as if it had not been."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import comfyui_calibri
from comfyui_calibri.calibri.journal import Journal, JournalError

from .exact_run import CONFIG, ExactEvaluator, Interrupted, rows, run, same


@pytest.mark.parametrize("profile", ["default", "paper"])
def test_stopped_at_every_batch_it_ends_as_the_uninterrupted_run(tmp_path, profile):
    config = replace(CONFIG, profile=profile)
    whole = ExactEvaluator()
    outcome = run(tmp_path / "whole.sqlite", whole, config)
    expected = rows(tmp_path / "whole.sqlite")
    assert {role for role, *_ in expected} == {
        "generation",
        "validation",
        "selection",
        "confirmation",
    }
    for stop in range(len(whole.batches)):
        path = tmp_path / f"{stop}.sqlite"
        first = ExactEvaluator(stop_at=stop)
        with pytest.raises(Interrupted):
            run(path, first, config)
        second = ExactEvaluator()
        assert same(run(path, second, config), outcome)
        assert rows(path) == expected
        assert first.batches + second.batches == whole.batches


def test_stopped_at_each_batch_of_one_run(tmp_path):
    outcome = run(tmp_path / "whole.sqlite")
    path = tmp_path / "run.sqlite"
    stops = 0
    while True:
        try:
            resumed = run(path, ExactEvaluator(stop_at=1))
            break
        except Interrupted:
            stops += 1
    assert stops > 12
    assert same(resumed, outcome)
    with Journal.read(path) as journal:
        kinds = [event.kind for event in journal.events()]
    assert kinds == ["started", *["interrupted", "resumed"] * stops, "finished"]


def test_killed_process_resumes_bit_for_bit(tmp_path):
    whole = ExactEvaluator()
    run(tmp_path / "whole.sqlite", whole)
    path = tmp_path / "killed.sqlite"
    (tmp_path / "comfyui_calibri").symlink_to(
        Path(comfyui_calibri.__file__).parent, target_is_directory=True
    )
    script = f"""
import sys, time
sys.path[:0] = [{str(tmp_path)!r}, {str(Path(__file__).parent)!r}]
from exact_run import ExactEvaluator, Path, run
class Slow(ExactEvaluator):
    def run(self, *arguments):
        rewards = super().run(*arguments)
        print("batch", flush=True)
        time.sleep(0.02)
        return rewards
run(Path({str(path)!r}), Slow())
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(9):
        assert process.stdout.readline().strip() == "batch"
    with pytest.raises(JournalError, match="another run may be using it"):
        Journal.open(path)
    process.kill()
    process.wait()
    process.stdout.close()

    with Journal.read(path) as journal:
        kept = sum(evaluation.done for evaluation in journal.evaluations())
    left = ExactEvaluator()
    run(path, left)
    assert rows(path) == rows(tmp_path / "whole.sqlite")
    # Eight batches had their result when the ninth was told: nothing of them is done again.
    assert kept >= sum(whole.batches[:8])
    assert sum(left.batches) == sum(whole.batches) - kept


def test_a_callback_may_stop_the_run(tmp_path):
    def stop(done, total):
        if done > 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run.sqlite", on_batch=stop)
    assert same(run(tmp_path / "run.sqlite"), run(tmp_path / "whole.sqlite"))


def test_too_large_batches_are_halved_and_the_journal_remembers(tmp_path):
    small = ExactEvaluator(batch=16, memory=5)
    outcome = run(tmp_path / "whole.sqlite", small)
    assert max(small.batches) <= 5
    expected = rows(tmp_path / "whole.sqlite")
    for stop in range(0, len(small.batches), 7):
        path = tmp_path / f"{stop}.sqlite"
        first = ExactEvaluator(batch=16, memory=5, stop_at=stop)
        with pytest.raises(Interrupted):
            run(path, first)
        second = ExactEvaluator(batch=16, memory=5)
        assert same(run(path, second), outcome)
        assert rows(path) == expected
        assert first.batches + second.batches == small.batches
