"""A run that was stopped anywhere, even by kill -9, ends as if it had not been."""

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import comfyui_calibri
from comfyui_calibri.calibri.journal import Journal, JournalError
from comfyui_calibri.calibri.session import Session

from .exact_run import CONFIG, SPACE, ExactEvaluator, Interrupted, rows, run, same


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
    script = f"""
import sys, time
sys.path[:0] = [{importable(tmp_path)!r}, {str(Path(__file__).parent)!r}]
from exact_run import ExactEvaluator, Path, run
class Slow(ExactEvaluator):
    left = 9
    def run(self, *arguments):
        rewards = super().run(*arguments)
        print("batch", flush=True)
        self.left -= 1
        time.sleep(0.02 if self.left else 600)  # until it is killed
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork, so that twenty runs start at once")
def test_killed_at_twenty_random_moments(tmp_path):
    config = replace(CONFIG, generations=30)
    whole, last = ExactEvaluator(), ExactEvaluator()
    outcome = run(tmp_path / "whole.sqlite", whole, config)
    path = tmp_path / "killed.sqlite"
    arguments = [importable(tmp_path), str(path), "7", "20"]
    script = Path(__file__).with_name("killed_runs.py")
    printed = subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, check=True
    )
    killed, begun = map(int, printed.stdout.split())
    assert killed == 20
    assert begun > 20
    assert same(run(path, last, config), outcome)
    assert rows(path) == rows(tmp_path / "whole.sqlite")
    repeated = begun + len(last.batches) - len(whole.batches)
    assert 0 < repeated <= killed


def to_the_end(session):
    while session.advance():
        pass


def importable(folder: Path) -> str:
    """A folder from which another process imports the package."""
    package = Path(comfyui_calibri.__file__).parent
    (folder / "comfyui_calibri").symlink_to(package, target_is_directory=True)
    return str(folder)


@contextmanager
def full_disk(kind, journal):
    """Within, the journal's file cannot grow."""
    if kind == "pages":
        pages = journal._database.execute("PRAGMA page_count").fetchone()[0]
        journal._database.execute(f"PRAGMA max_page_count = {pages}")
        yield
        journal._database.execute("PRAGMA max_page_count = 1073741823")
        return
    resource = pytest.importorskip("resource", reason="POSIX's limit of a file's size")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = journal.path.with_name(journal.path.name + "-wal")
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("kind", ["pages", "file size"])
@pytest.mark.parametrize("batches", [0, 1, 9])
def test_a_full_disk_costs_no_more_than_a_batch(tmp_path, kind, batches):
    whole, before, after = ExactEvaluator(), ExactEvaluator(), ExactEvaluator()
    outcome = run(tmp_path / "whole.sqlite", whole)
    path = tmp_path / "run.sqlite"
    with Journal.open(path) as journal:
        session = Session(CONFIG, SPACE, before, journal)
        for _ in range(batches):
            session.advance()
        with full_disk(kind, journal), pytest.raises(JournalError, match=r"see that .* disk has"):
            to_the_end(session)
        with pytest.raises(JournalError, match=r"stopped with an error.*open it anew"):
            session.advance()
        done = session.images
    with Journal.read(path) as journal:
        kept = sum(evaluation.done for evaluation in journal.evaluations())
    assert kept == done < sum(whole.batches)
    assert same(run(path, after), outcome)
    assert rows(path) == rows(tmp_path / "whole.sqlite")
    assert len(before.batches) + len(after.batches) - len(whole.batches) <= 1


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
