"""What ComfyUI keeps of the user's nodes is the same with and without a calibration behind them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .background_client import RunsClient, cached_nodes
from .background_fixtures import StartServer
from .background_graph import SEED_DECIDES, TINY, Prompt, calibration, picture

pytestmark = pytest.mark.oldest

# Each slice takes one of an LRU cache's places (docs/background.md): here there are enough for all.
MODES = {"default": (), "classic": ("--cache-classic",), "lru": ("--cache-lru", "500")}
NEVER = 3600.0  # seconds


def users_day() -> list[Prompt]:
    """What somebody queues, one after another: other seeds, another text, the same again."""
    other_text = picture(TINY, 3)
    other_text["22"]["inputs"]["text"] = "a blue square"
    part = {node: picture(TINY, 4)[node] for node in ("11", "12", "22")}
    part["30"] = {"class_type": "PreviewAny", "inputs": {"source": ["22", 0]}}
    return [
        picture(TINY, 1),
        picture(TINY, 2),
        picture(TINY, 2),
        other_text,
        part,
        picture(TINY, 5),
        picture(TINY, 6, batch_size=2),
        picture(TINY, 7, batch_size=2),
    ]


@pytest.mark.parametrize("mode", MODES)
def test_the_users_next_run_finds_the_same_nodes_cached(
    start_server: StartServer, mode: str, newest: bool
) -> None:
    if not newest and mode != "default":
        pytest.skip("other modes are tried on the newest ComfyUI")
    days = {}
    for idle_seconds in (NEVER, 0.0):
        server, client = start_server(*MODES[mode], name=f"idle-{idle_seconds:g}")
        settings = {"generations": 100, "idle_seconds": idle_seconds, "slice_seconds": 0.0}
        client.run(picture(TINY, 0))
        client.run(calibration(TINY, "day", **settings))
        works = idle_seconds != NEVER
        cached = []
        for prompt in users_day():
            _let_it_work(client, works)
            done = client.run(prompt)
            cached.append(cached_nodes(client.until_done(done.prompt_id)))
        counted = (server.output / "counted.txt").read_text()
        days[idle_seconds] = (cached, counted)
        run = client.summary("day")
        assert run["state"] == "running", run
        assert (run["slices"] > 0) == works
        server.stop()
    assert days[0.0] == days[NEVER]
    cached, _ = days[0.0]
    assert cached[1] == picture(TINY, 0).keys() - SEED_DECIDES


def _let_it_work(client: RunsClient, works: bool) -> None:
    """Wait for three more slices, where there are any."""
    if works:
        before = client.summary("day")["slices"]
        client.until("day", _has(before + 3))


def _has(slices: int) -> Callable[[dict[str, int]], bool]:
    return lambda now: now["slices"] >= slices
