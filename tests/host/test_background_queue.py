"""What people do to ComfyUI's queue meets a background run: Cancel, a cleared queue, two runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from comfyui_calibri.calibri.journal import Journal

from .background_client import RunsClient, Summary
from .background_fixtures import Found, StartServer, Undisturbed
from .background_graph import TINY, calibration, picture
from .background_trouble import set_trouble

ENDLESS = {"generations": 10_000, "validate_every": 1000, "slice_seconds": 600.0}
SHORT = {"generations": 2, "validate_every": 1, "idle_seconds": 0.1, "slice_seconds": 0.5}


@pytest.mark.oldest
def test_cancel_loses_one_batch_and_the_run_goes_on(
    start_server: StartServer, undisturbed: Undisturbed
) -> None:
    server, client = start_server()
    set_trouble(server, seconds=0.2)
    client.queue(calibration(TINY, "run", **{**SHORT, "slice_seconds": 600, "idle_seconds": 1}))
    before = client.until("run", lambda now: now["images"])
    cancelled = _cancel_a_slice(client)
    assert cancelled["images"] >= before["images"]
    assert cancelled["state"] == "running"
    assert client.queue_length() == 0
    set_trouble(server)
    finished = client.finished("run")
    calls = len((server.output / "calls.txt").read_text().splitlines())
    assert calls - _batches(server.folder / "user", "run") in (0, 1)
    assert Found.read(server, finished) == undisturbed(**SHORT)


@pytest.mark.oldest
def test_cancelled_three_times_in_a_row_it_rests_until_resumed(start_server: StartServer) -> None:
    server, client = start_server()
    set_trouble(server, seconds=0.2)
    client.queue(calibration(TINY, "run", **ENDLESS, idle_seconds=1.0))
    client.until("run", lambda now: now["images"])
    for _ in range(3):
        assert client.summary("run")["state"] == "running"
        _cancel_a_slice(client)
    paused = client.until("run", lambda now: now["state"] != "running")
    assert paused["state"] == "paused"
    assert "cancelled 3 times" in paused["reason"]
    assert client.queue_length() == 0
    client.act("run", "resume")
    client.until("run", lambda now: now["images"] > paused["images"])
    assert client.summary("run")["state"] == "running"


@pytest.mark.oldest
def test_a_cleared_queue_pauses_the_run_and_says_so(start_server: StartServer) -> None:
    _, client = start_server()
    client.queue(calibration(TINY, "run", **{**ENDLESS, "slice_seconds": 0.0}, idle_seconds=0.0))
    # A slice waits for a moment only before ComfyUI takes it: clear until one is met.
    with _clearing(client):
        paused = client.until("run", lambda now: now["state"] == "paused", seconds=120)
    assert "queue" in paused["reason"]
    client.run(picture(TINY, 1))
    assert client.summary("run")["images"] == paused["images"]
    client.act("run", "resume")
    client.until("run", lambda now: now["images"] > paused["images"])


def test_two_runs_take_turns_and_find_what_each_finds_alone(
    start_server: StartServer, undisturbed: Undisturbed
) -> None:
    server, client = start_server()
    settings = {"first": SHORT, "second": {**SHORT, "seed": 2}}
    for run, changes in settings.items():
        client.queue(calibration(TINY, run, **changes))
    client.until("second", lambda now: now["state"] == "waiting")
    runs = _runs(client)
    while runs["first"]["state"] == "running":
        assert (runs["second"]["state"], runs["second"]["images"]) == ("waiting", 0)
        runs = _runs(client)
    first, second = client.finished("first"), client.finished("second")
    assert Found.read(server, first) == undisturbed(**SHORT)
    assert Found.read(server, second) == undisturbed(**settings["second"])


def _runs(client: RunsClient) -> dict[str, Summary]:
    return {run["id"]: run for run in client.summaries()}


def _cancel_a_slice(client: RunsClient) -> Summary:
    """Press Cancel while a slice runs; the run as it is afterwards."""
    client.until("run", lambda now: client.queue_length() == 1)
    time.sleep(0.3)  # ComfyUI forgets a Cancel that comes before it begins a prompt
    slices = client.summary("run")["slices"]
    client.interrupt()
    client.until("run", lambda now: now["slices"] > slices)
    return client.until("run", lambda now: client.queue_length() == 0)


def _batches(user: Path, run: str) -> int:
    """Batches of the run's own reward; diversity is judged without it."""
    with Journal.read(user / "calibri" / "runs" / run / "journal.sqlite") as journal:
        rows = journal._rows(
            "SELECT count(*) FROM results JOIN evaluations ON evaluations.id = results.evaluation "
            "WHERE role NOT LIKE 'judging %'"
        )
    return int(rows[0][0])


@contextmanager
def _clearing(client: RunsClient) -> Iterator[None]:
    """Within, somebody presses "clear" over and over."""
    enough = threading.Event()

    def clear() -> None:
        while not enough.is_set():
            client.clear_queue()

    thread = threading.Thread(target=clear)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()
