"""A calibration on two machines of a Ray cluster: what it finds is what one process finds, whatever
happens to workers, machines and the driver meanwhile."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from comfyui_calibri.calibri import worker_pool
from comfyui_calibri.calibri.cluster_worker import WorkerError
from comfyui_calibri.calibri.evaluation import BatchTooLargeError
from comfyui_calibri.calibri.run_state import read_state

from . import cluster_trials, exact_run
from .cluster_trials import PATIENCE, Trial
from .exact_run import ExactEvaluator, rows, run, same

ray = pytest.importorskip("ray", reason="the extra ray is not installed")

pytestmark = pytest.mark.slow

MEMORY = 80 * 2**20  # of each machine's object store


@pytest.fixture(scope="module")
def machines() -> Iterator[Any]:
    """Two machines of one processor each, on loopback; a third can join."""
    from ray.cluster_utils import Cluster

    ray.cloudpickle.register_pickle_by_value(exact_run)
    ray.cloudpickle.register_pickle_by_value(cluster_trials)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    limits = {"num_cpus": 1, "object_store_memory": MEMORY}
    cluster = Cluster(initialize_head=True, head_node_args={**limits, "include_dashboard": False})
    cluster.add_node(**limits)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    cluster.more = lambda: cluster.add_node(**limits)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[Any]]:
    """What one process finds."""
    journal = tmp_path_factory.mktemp("alone") / "journal.sqlite"
    return run(journal), rows(journal)


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(tmp_path)


def test_two_machines_find_what_one_process_finds(
    machines: Any, alone: tuple[Any, list[Any]], trial: Trial
) -> None:
    (trial.folder / "wait").touch()  # until both are there

    def heard(_: str) -> None:
        if trial.ready() == 2:
            (trial.folder / "wait").unlink()

    trial.heard = heard
    with closing(trial.workers()) as evaluator:
        outcome = run(trial.journal, evaluator)
        assert len(set(evaluator.places)) == 2
    assert same(outcome, alone[0])
    assert _sorted(rows(trial.journal)) == _sorted(alone[1])


def test_workers_that_die_or_hang_are_replaced_and_their_work_is_done_again(
    machines: Any, alone: tuple[Any, list[Any]], trial: Trial
) -> None:
    (trial.folder / "die").touch()
    (trial.folder / "hang").touch()
    with closing(trial.workers(batch_seconds=3.0)) as evaluator:
        outcome = run(trial.journal, evaluator)
    told = " ".join(trial.said)
    assert "its process has ended" in told
    assert "it gave no answer for 3 s" in told
    assert same(outcome, alone[0])
    assert _sorted(rows(trial.journal)) == _sorted(alone[1])


def test_a_machine_that_joins_late_gets_a_worker_and_takes_it_along_when_it_leaves(
    machines: Any, alone: tuple[Any, list[Any]], trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pool, "LOOK_AGAIN", 0.2)
    (trial.folder / "wait").touch()
    joined = []

    def heard(_: str) -> None:
        if trial.ready() == 2:
            joined.append(machines.more())
        if trial.ready() == 3 and joined:
            machines.remove_node(joined.pop())
            (trial.folder / "wait").unlink()

    trial.heard = heard
    try:
        with closing(trial.workers(wanted=None)) as evaluator:
            outcome = run(trial.journal, evaluator)
            assert len(evaluator.places) == 2
    finally:
        for machine in joined:
            machines.remove_node(machine)
    assert trial.ready() == 3
    assert "its process has ended" in " ".join(trial.said)
    assert same(outcome, alone[0])
    assert _sorted(rows(trial.journal)) == _sorted(alone[1])


def test_a_driver_that_was_killed_goes_on(
    machines: Any, alone: tuple[Any, list[Any]], trial: Trial
) -> None:
    (trial.folder / "wait").touch()  # nothing but the first batches until it is killed
    program = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import ray
from unit import cluster_trials, exact_run
for module in (cluster_trials, exact_run):
    ray.cloudpickle.register_pickle_by_value(module)
ray.init(address={machines.address!r}, log_to_driver=False, logging_level="ERROR")
trial = cluster_trials.Trial(Path({str(trial.folder)!r}))
exact_run.run(trial.journal, trial.workers())
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=trial.folder) as driver:
        try:
            _until(lambda: _done(trial.journal) > 0, driver)
        finally:
            driver.kill()
    before = _done(trial.journal)
    (trial.folder / "wait").unlink()
    with closing(trial.workers()) as evaluator:
        outcome = run(trial.journal, evaluator)
    assert 0 < before < _done(trial.journal)
    assert same(outcome, alone[0])
    assert _sorted(rows(trial.journal)) == _sorted(alone[1])


def test_batches_that_do_not_fit_are_halved_as_in_one_process(
    machines: Any, trial: Trial, tmp_path: Path
) -> None:
    single = tmp_path / "single.sqlite"
    expected = run(single, ExactEvaluator(memory=8))
    with closing(trial.workers(memory=8)) as evaluator:
        assert same(run(trial.journal, evaluator), expected)
        vectors = exact_run.SPACE.identity[None]
        bucket = exact_run.CONFIG.validation_samples() * 3
        whole = tuple((0, position) for position in range(9))
        with pytest.raises(BatchTooLargeError, match="9 images do not fit"):
            evaluator.run(whole, vectors, bucket)
    assert _sorted(rows(trial.journal)) == _sorted(rows(single))


def test_what_no_worker_can_load_is_said(
    machines: Any, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pool, "MOST_FAILED_STARTS", 1)
    (trial.folder / "broken").touch()
    with pytest.raises(WorkerError, match="No worker can be started: The model's file is not"):
        trial.workers(wanted=1)


def test_workers_without_a_place_are_told_of_and_the_others_draw(
    machines: Any, alone: tuple[Any, list[Any]], trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pool, "LOOK_AGAIN", 0.2)
    monkeypatch.setattr(worker_pool, "NO_PLACE", 0.2)
    (trial.folder / "wait").touch()

    def heard(text: str) -> None:
        if "2 of 4 workers wait for a place" in text:
            (trial.folder / "wait").unlink()

    trial.heard = heard
    with closing(trial.workers(wanted=4)) as evaluator:
        outcome = run(trial.journal, evaluator)
    told = [text for text in trial.said if "2 of 4 workers wait for a place" in text]
    assert len(told) == 1
    assert "each takes 0 GPUs and 1 CPU, and the cluster has 0 GPUs and 2 CPUs on 2 m" in told[0]
    assert "ask for fewer with --workers" in told[0]
    assert same(outcome, alone[0])


def test_where_no_worker_can_ever_be_placed_that_is_said_and_it_waits(
    machines: Any, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pool, "LOOK_AGAIN", 0.2)
    monkeypatch.setattr(worker_pool, "NO_PLACE", 0.2)
    monkeypatch.setattr(worker_pool, "SAY_AGAIN", 1.0)

    def heard(_: str) -> None:
        if len(trial.said) == 2:  # it was said again, since nobody came
            raise KeyboardInterrupt

    trial.heard = heard
    with pytest.raises(KeyboardInterrupt):
        trial.workers(wanted=None, cpus=8.0)
    assert set(trial.said) == {
        "The worker waits for a place: it takes 0 GPUs and 8 CPUs, and the cluster has 0 GPUs and "
        "2 CPUs on 2 machines, 0 GPUs and 2 CPUs free; no machine has as much: ask for less with "
        "--gpus-per-worker or --cpus-per-worker, or add a machine that has."
    }
    # Interrupted while it waited, it leaves nothing behind: both places are free.
    _until_free(2.0)


def test_a_worker_with_another_version_is_let_go(
    machines: Any, alone: tuple[Any, list[Any]], trial: Trial
) -> None:
    trial.so_far = {"torch": "2.11.0"}
    (trial.folder / "other").touch()
    (trial.folder / "wait").touch()

    def heard(_: str) -> None:
        if trial.ready() and any("is replaced" in text for text in trial.said):
            (trial.folder / "wait").unlink(missing_ok=True)

    trial.heard = heard
    with closing(trial.workers()) as evaluator:
        outcome = run(trial.journal, evaluator)
    # Whichever of the two it was: the run was drawn with the other before.
    told = " ".join(trial.said)
    assert re.search(r"its PyTorch is 2\.10\.0, the (run's so far|first worker's) 2\.11\.0\.", told)
    assert "Install the same on all machines, or give --mixed-workers." in told
    assert same(outcome, alone[0])


def test_workers_that_may_be_mixed_are_taken_with_a_word(machines: Any, trial: Trial) -> None:
    trial.so_far = {"torch": "2.9.0"}
    with closing(trial.workers(wanted=1, mixed=True)) as evaluator:
        assert len(evaluator.places) == 1
    assert trial.said[0] == (
        "A worker's images may differ in the last bits: its PyTorch is 2.11.0, the run's so far "
        "2.9.0."
    )


def test_images_that_end_machines_by_their_memory_are_halved(
    machines: Any, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pool, "_why", lambda _: "its machine's memory ran out")
    vectors, bucket = exact_run.SPACE.identity[None], exact_run.CONFIG.validation_samples()
    with closing(trial.workers(wanted=1)) as evaluator:
        for size, error in ((2, BatchTooLargeError), (1, WorkerError)):
            batch = tuple((0, position) for position in range(size))
            (trial.folder / "die always").touch()
            with pytest.raises(error, match="3 workers were lost on the same images"):
                evaluator.answer([batch], vectors, bucket, "")
            (trial.folder / "die always").unlink()
            evaluator.answer([batch], vectors, bucket, "")


def _until_free(processors: float) -> None:
    deadline = time.monotonic() + PATIENCE
    while ray.available_resources().get("CPU", 0.0) < processors:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _sorted(found: list[Any]) -> list[Any]:
    return sorted(found, key=lambda row: row[:2])


def _done(journal: Path) -> int:
    return read_state(journal).images


def _until(holds: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert process.poll() is None, "the driver has ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.05)
