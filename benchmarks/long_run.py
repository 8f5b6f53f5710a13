"""A run of 2,000 generations and 114 coefficients, which never was, told to a page as ComfyUI's
server would, and the main thread's time for each generation more."""

from __future__ import annotations

import math
from typing import Any

from playwright.sync_api import CDPSession, Page, Route

GENERATIONS = 2000
COEFFICIENTS = 114
COLUMNS = 250  # generations of such a run that have a vector
UPDATES = 10
BETWEEN = 1400  # ms; the panel asks once a second
RUN = "benchmark"


class LongRun:
    """Answers a page's questions about the run, before the page is loaded."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._course = [_row(number) for number in range(GENERATIONS + 1)]
        page.route("**/calibri/runs", lambda route: route.fulfill(json=self._listed()))
        page.route("**/calibri/runs/*since=*", self._tell)
        page.route("**/calibri/runs/*/follow", lambda route: route.fulfill(json={}))

    def wait_until_shown(self) -> None:
        """Wait for the panel, and until the page has come to rest."""
        self._page.wait_for_selector(".calibri-watch [role=img][aria-label*='2,000']")
        self._page.wait_for_timeout(3000)
        self._clock = clock(self._page)

    def idle(self) -> float:
        """The main thread's milliseconds in the time of an update, without one."""
        return self._spent(None)

    def updates(self) -> list[float]:
        """The main thread's milliseconds, painting included, for each of some new generations."""
        spent = []
        for _ in range(UPDATES):
            self._course.append(_row(len(self._course)))
            spent.append(self._spent(self._listed()["runs"][0]))
        return spent

    def _spent(self, told: dict[str, Any] | None) -> float:
        before = busy(self._clock)
        self._page.evaluate(
            "run => run && app.api.dispatchEvent(new CustomEvent('calibri.run', { detail: run }))",
            told,
        )
        self._page.wait_for_timeout(BETWEEN)
        return busy(self._clock) - before

    def _tell(self, route: Route) -> None:
        since = int(route.request.url.rpartition("since=")[2])
        names = [f"double.{n // 4}.branch.{n % 4}" for n in range(COEFFICIENTS)]
        answer = {"course": self._course[since:], "coordinates": names, "picture": None}
        route.fulfill(json=answer)

    def _listed(self) -> dict[str, Any]:
        return _listed(len(self._course) - 1)


def clock(page: Page) -> CDPSession:
    """What `busy` asks, of the main thread's own time, which other processes disturb little."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    return session


def busy(clock: CDPSession) -> float:
    """Milliseconds that the page's main thread has worked."""
    metrics = clock.send("Performance.getMetrics")["metrics"]
    found = next(each["value"] for each in metrics if each["name"] == "TaskDuration")
    return float(found) * 1000


def _listed(generation: int) -> dict[str, Any]:
    run = {
        "id": RUN,
        "revision": 2**50 + generation,
        "title": RUN,
        "created": 0.0,
        "where": "background",
        "reason": "",
        "state": "running",
        "generation": generation,
        "generations": 4000,
        "images": 16 * generation,
        "total": 64_000,
        "phase": "generation",
        "plain": -1.0,
        "reward": -0.5,
        "best": 1,
        "gain": {"mean": 0.5, "low": 0.4, "high": 0.6},
        "seconds": 100.0,
        "seconds_left": 100.0,
        "longest_wait": 0.0,
    }
    return {"revision": 2**50 + generation, "runs": [run]}


def _row(number: int) -> dict[str, Any]:
    mean = -1 / (1 + number / 200) + 0.1 * math.sin(number)
    is_known = number % (GENERATIONS // COLUMNS) == 0 or number >= GENERATIONS
    vector = [round(math.sin(n + number / 500), 4) for n in range(COEFFICIENTS)]
    gain = {"mean": mean + 1, "low": mean + 0.9, "high": mean + 1.1}
    return {
        "generation": number,
        "mean": mean,
        "best": mean + 0.3,
        "worst": mean - 0.4,
        "step": 0.25,
        "sigma": 0.25,
        "images": 16,
        "seconds": 2.0,
        "validation": mean,
        "gain": gain if number else None,
        "vector": vector if is_known else None,
    }
