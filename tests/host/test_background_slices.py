"""Slices make room: user prompts go first, the queue is empty between slices, history stays the
user's."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import psutil
import pytest

from .background_client import RunsClient, started
from .background_fixtures import StartServer
from .background_graph import TINY, calibration, picture
from .background_page import Page
from .background_trouble import set_trouble
from .forked_server import ForkedServer

ROWS = 16  # images of a batch on a CPU
ENDLESS = {"generations": 10_000, "validate_every": 1000}


@pytest.mark.oldest
def test_a_users_prompt_waits_for_one_batch_at_most(start_server: StartServer) -> None:
    server, client = start_server()
    set_trouble(server, seconds=1.0)
    client.run(picture(TINY, 0))
    # No slice within two seconds after a prompt: what the run has done by then it did before.
    client.queue(calibration(TINY, "long", **ENDLESS, idle_seconds=2.0, slice_seconds=600.0))
    chooser = random.Random(3)
    longest, seen = 0.0, 0
    for seed in range(3):
        client.until("long", lambda now, seen=seen: now["images"] > seen)  # a slice runs
        time.sleep(chooser.uniform(0.1, 1.5))
        before = client.summary("long")["images"]
        posted = time.time()
        entry = client.until_done(client.queue(picture(TINY, seed)))
        after = seen = client.summary("long")["images"]
        assert entry["status"]["status_str"] == "success"
        # The batch in flight, and one that ended while the prompt was on its way.
        assert after - before <= 2 * ROWS
        longest = max(longest, started(entry) - posted)
    reported = client.summary("long")["longest_wait"]
    assert longest / 4 < reported <= longest + 1.0
    assert client.summary("long")["slices"] >= 3


def test_a_batch_that_would_take_long_is_given_up_for_a_prompt(start_server: StartServer) -> None:
    server, client = start_server()
    set_trouble(server, step_seconds=0.5)
    graph = calibration(TINY, "slow", **ENDLESS, steps=60, idle_seconds=1.0, model=["16", 0])
    graph["16"] = {"class_type": "CalibriTestSlowModel", "inputs": {"model": ["10", 0]}}
    client.queue(graph)
    # 60 steps of half a second: the first batch alone takes half a minute.
    client.until("slow", lambda now: "CalibriSlice" in _at_work(client))
    time.sleep(2.0)
    posted = time.time()
    entry = client.until_done(client.queue(picture(TINY, 1)))
    now = client.summary("slow")
    assert entry["status"]["status_str"] == "success"
    assert (now["state"], now["images"]) == ("running", 0)
    assert started(entry) - posted < 12.0  # of 28 that were left
    assert 0.0 < now["longest_wait"] < 12.0


@pytest.mark.oldest
def test_between_slices_the_queue_is_empty_and_no_page_sees_them(
    start_server: StartServer,
) -> None:
    server, client = start_server()
    with Page(server.url) as page, Page(server.url) as follower:
        mine = [client.run(picture(TINY, 0)).prompt_id]
        settings = {**ENDLESS, "idle_seconds": 1.0, "slice_seconds": 0.0}
        mine.append(client.run(calibration(TINY, "long", **settings)).prompt_id)
        client.until("long", lambda now: now["slices"] >= 2)
        # As "Run (Instant)": a prompt as soon as the queue is empty.
        instant = time.monotonic()
        for seed in range(1, 9):
            client.until("long", lambda now: client.queue_length() == 0)
            if seed == 2:
                slices = client.summary("long")["slices"]
            mine.append(client.run(picture(TINY, seed)).prompt_id)
        if time.monotonic() - instant < 8 * 0.9:  # not on a machine that pauses longer than it
            assert client.summary("long")["slices"] == slices
        client.call("POST", "/long/follow", {"client_id": follower.client_id})
        client.until("long", lambda now: now["slices"] >= slices + 6)
        assert list(_history_of(client, mine)) == mine
    told = {data["prompt_id"] for _, data in page.events if data.get("prompt_id")}
    assert told <= set(mine)
    remaining = [s["status"]["exec_info"]["queue_remaining"] for s in page.heard("status")]
    assert max(remaining) == 1
    assert remaining.count(0) >= 10
    # All hear of results, and each batch only who follows the run.
    assert len(follower.heard("calibri.run")) > len(page.heard("calibri.run")) > 0


@pytest.mark.slow
def test_a_thousand_slices_leave_the_history_and_the_memory_alone(
    start_server: StartServer,
) -> None:
    server, client = start_server()
    mine = [client.run(picture(TINY, seed)).prompt_id for seed in range(3)]
    small = {"width": 16, "height": 16, "steps": 1, "bucket_size": 1}
    endless = {**ENDLESS, "idle_seconds": 0.0, "slice_seconds": 0.0}
    mine.append(client.run(calibration(TINY, "many", **small, **endless)).prompt_id)
    client.until("many", lambda now: now["slices"] >= 200, seconds=120)
    memory, handles = _held(server)
    client.until("many", lambda now: now["slices"] >= 1000, seconds=300)
    later_memory, later_handles = _held(server)
    mine.append(client.run(picture(TINY, 9)).prompt_id)
    client.act("many", "pause")
    client.until("many", lambda now: client.queue_length() == 0)
    history = _history_of(client, mine)
    assert list(history) == mine
    assert all(entry["status"]["status_str"] == "success" for entry in history.values())
    assert later_memory - memory < 100 * 2**20
    assert later_handles - handles < 20
    assert client.summary("many")["state"] == "paused"


def _at_work(client: RunsClient) -> str:
    """The prompt that runs, as text."""
    return json.dumps(client.get_json("/queue")["queue_running"])


def _held(server: ForkedServer) -> tuple[int, int]:
    """Bytes of memory, and open files, of a server."""
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    return process.memory_info().rss, process.num_fds()


def _history_of(client: RunsClient, mine: list[str]) -> dict[str, Any]:
    """The history; a slice that has just ended is taken out of it a moment later."""
    until = time.monotonic() + 10
    while True:
        history: dict[str, Any] = client.get_json("/history")
        if list(history) == mine or time.monotonic() > until:
            return history
        time.sleep(0.02)
