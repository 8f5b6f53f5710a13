"""What goes wrong in a run's midst pauses it with a reason, and loses nothing."""

from __future__ import annotations

import pytest

from .background_fixtures import Found, StartServer, Undisturbed
from .background_graph import TINY, calibration
from .background_trouble import set_trouble

SETTINGS = {"generations": 2, "validate_every": 1, "idle_seconds": 0.1, "slice_seconds": 0.5}
LITTLE_MEMORY = {"at": 0, "kind": "memory", "rows": 4}


def test_a_reward_that_fails_pauses_the_run_until_it_is_mended(
    start_server: StartServer, undisturbed: Undisturbed
) -> None:
    server, client = start_server()
    client.queue(calibration(TINY, "run", **SETTINGS))
    client.until("run", lambda now: now["images"])
    images = 0
    kinds = {"gone": "server has gone away", "nan": "must be a finite number"}
    for failures, (kind, reason) in enumerate(kinds.items(), start=1):
        set_trouble(server, at=3, kind=kind)
        if failures > 1:
            client.act("run", "resume")
        paused = client.until("run", lambda now: now["state"] == "paused")
        assert reason in paused["reason"]
        assert paused["images"] > images
        history = client.get_json("/history")
        # The prompt that began the run, and the slices that failed.
        states = [entry["status"]["status_str"] for entry in history.values()]
        assert states == ["success", *["error"] * failures]
        images = paused["images"]
    set_trouble(server)
    client.act("run", "resume")
    assert Found.read(server, client.finished("run")) == undisturbed(**SETTINGS)


def test_without_memory_for_one_image_the_run_rests(start_server: StartServer) -> None:
    server, client = start_server()
    client.queue(calibration(TINY, "run", **SETTINGS))
    client.until("run", lambda now: now["images"])
    set_trouble(server, at=2, kind="memory", rows=0)
    paused = client.until("run", lambda now: now["state"] == "paused")
    assert "does not fit in memory" in paused["reason"]
    # What was done is kept; batches are of one image from here on, which may differ in last bits.
    set_trouble(server)
    client.act("run", "resume")
    finished = client.finished("run")
    assert finished["images"] == finished["total"] > paused["images"] > 0


def test_batches_that_do_not_fit_are_halved_the_same_after_a_kill(
    start_server: StartServer, undisturbed: Undisturbed
) -> None:
    server, client = start_server()
    set_trouble(server, **LITTLE_MEMORY)
    client.queue(calibration(TINY, "run", **SETTINGS))
    client.until("run", lambda now: now["images"] > 32)
    server.kill()
    server.start()
    client.act("run", "resume")
    assert Found.read(server, client.finished("run")) == undisturbed(LITTLE_MEMORY, **SETTINGS)


@pytest.mark.oldest
def test_a_full_disk_pauses_the_run_until_there_is_space(
    start_server: StartServer, undisturbed: Undisturbed
) -> None:
    server, client = start_server()
    set_trouble(server, seconds=0.1)
    client.queue(calibration(TINY, "run", **SETTINGS))
    client.until("run", lambda now: now["images"] > 32)
    folder = server.folder / "user" / "calibri" / "runs" / "run"
    server.limit_files((folder / "journal.sqlite-wal").stat().st_size)
    paused = client.until("run", lambda now: now["state"] != "running")
    assert paused["state"] == "paused"
    assert "journal" in paused["reason"]
    assert "disk" in paused["reason"]
    server.limit_files(None)
    set_trouble(server)
    client.act("run", "resume")
    assert Found.read(server, client.finished("run")) == undisturbed(**SETTINGS)
