"""kill -9 at any moment of a background calibration: what is found is the same in the end."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from http.client import HTTPException
from pathlib import Path

import numpy as np
import pytest

from setup_error import SetupError

from .background_client import RunsClient, Summary
from .background_fixtures import Found, StartServer
from .background_graph import TINY, calibration, picture
from .forked_server import ForkedServer

pytestmark = [pytest.mark.oldest, pytest.mark.slow]

RUN = "night"
SETTINGS = {"generations": 8, "idle_seconds": 0.2, "slice_seconds": 0.8}
KILLS, KILLS_OLDEST = 20, 4
CONCLUDING = ("selection", "confirmation", "done")


@pytest.fixture
def random_moments(newest: bool) -> list[str]:
    """At what a server is killed, in random order; the last ones come when the search ends."""
    chooser = random.Random(5)
    if not newest:
        return ["loading", "writing", "sampling", "conclusion"]
    kinds = ["starting", *["loading"] * 3, *["writing"] * 5, *["sampling"] * 5, *["idle"] * 3]
    chooser.shuffle(kinds)
    return [*kinds, *["conclusion"] * (KILLS - len(kinds))]


def test_killed_at_random_moments_it_ends_with_the_same_coefficients(
    start_server: StartServer, random_moments: list[str]
) -> None:
    chooser = random.Random(6)
    whole, alone = start_server(name="whole")
    alone.queue(calibration(TINY, RUN, **SETTINGS))
    server, client = start_server(name="killed")
    client.queue(calibration(TINY, RUN, **SETTINGS))
    client.until(RUN, lambda now: now["images"])
    visitor = Visitor(client)
    at_work = 0
    for moment in random_moments:
        visitor.comes_soon()
        at_work += client.summary(RUN)["state"] == "running"
        _kill(server, client, moment, chooser)
        _restart(server, client)
    visitor.leaves()
    finished = client.finished(RUN)
    assert at_work >= 0.8 * len(random_moments)
    expected = alone.finished(RUN)
    assert visitor.drawn > 0
    assert finished["generation"] == expected["generation"] == SETTINGS["generations"]
    found = Found.read(server, finished)
    assert found == Found.read(whole, expected)
    assert set(np.frombuffer(found.tensors["coefficients"], "<f4")) != {1.0}, "nothing was found"


class Visitor:
    """Somebody who draws a picture now and then, whether or not the server lives."""

    def __init__(self, client: RunsClient) -> None:
        self._client = client
        self._chooser = random.Random(7)
        self._visits: list[threading.Timer] = []
        self.drawn = 0

    def comes_soon(self) -> None:
        """Queue a picture within two seconds. One only: who never lets the queue be empty stops
        the run, as it should be."""
        self._visits.append(threading.Timer(self._chooser.uniform(0.0, 2.0), self._visit))
        self._visits[-1].start()

    def leaves(self) -> None:
        """Come no more."""
        for visit in self._visits:
            visit.join()

    def _visit(self) -> None:
        try:
            self._client.queue(picture(TINY, self._chooser.randrange(1000)))
            self.drawn += 1
        except (OSError, HTTPException):
            return  # it has just been killed


def _kill(server: ForkedServer, client: RunsClient, moment: str, chooser: random.Random) -> None:
    if moment == "starting":
        server.kill()
        _kill_while_it_starts(server, chooser.uniform(0.2, 2.0))
        return
    if moment == "writing":
        _wait_for_a_write(server.folder / "user" / "calibri" / "runs" / RUN, chooser)
    elif moment == "idle":
        client.until(RUN, lambda now: now["slices"] and client.queue_length() == 0)
    elif moment == "sampling":
        before = client.summary(RUN)["images"]
        client.until(RUN, lambda now: now["images"] > before or now["state"] == "finished")
    elif moment == "conclusion":
        client.until(RUN, _concludes, seconds=120)
    time.sleep(chooser.uniform(0.0, 0.4) if moment in ("loading", "sampling") else 0.0)
    server.kill()


def _kill_while_it_starts(server: ForkedServer, after: float) -> None:
    killer = threading.Timer(after, lambda: server.process is not None and server.process.kill())
    killer.start()
    with contextlib.suppress(SetupError):  # it may have been quicker
        server.start()
    killer.join()
    server.stop()


def _wait_for_a_write(run: Path, chooser: random.Random) -> None:
    """Return as soon as the journal has grown, or up to 2 ms later: in the midst of a write."""
    files = [run / "journal.sqlite", run / "journal.sqlite-wal"]
    sizes = lambda: [f.stat().st_size if f.exists() else 0 for f in files]  # noqa: E731
    deadline = time.monotonic() + 10
    for _ in range(chooser.randint(1, 4)):
        before = sizes()
        while sizes() == before and time.monotonic() < deadline:
            pass
    time.sleep(chooser.choice((0.0, 0.0005, 0.002)))


def _concludes(now: Summary) -> bool:
    return now["phase"] in CONCLUDING or now["state"] == "finished"


def _restart(server: ForkedServer, client: RunsClient) -> None:
    """Start again, and resume the run that offers itself."""
    server.start()
    run = client.summary(RUN)
    if run["state"] == "finished":
        return
    assert run["state"] == "interrupted", run
    client.act(RUN, "resume")
