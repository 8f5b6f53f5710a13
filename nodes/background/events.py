"""What pages hear of runs without asking: changes of state at once, new results now and then."""

from __future__ import annotations

import time
from typing import Any

from .registry import Registry
from .run import Run

EVENT = "calibri.run"
BETWEEN = 1.0  # seconds between two events of one run, unless its state changes


class Events:
    """Sends a run's summary to all pages, and each batch to the pages that follow it."""

    def __init__(self, server: Any, registry: Registry) -> None:
        self._server, self._registry = server, registry
        self._states: dict[str, tuple[str, str]] = {}
        self._told: dict[str, float] = {}

    def tell(self) -> bool:
        """Send what is due; whether something is left for later."""
        for summary in self._registry.take_deleted():
            self._send({**summary, "state": "deleted"})
        left = False
        for run in self._registry.all():
            left |= self._tell(run)
        return left

    def _tell(self, run: Run) -> bool:
        summary = run.summary(self._registry.waits_for(run))
        state = (summary["state"], summary["reason"])
        before = self._states.get(run.id)
        if run.news is None and state == before:
            return False
        if before is None and run.news is None:  # of an earlier session: pages ask when they start
            self._states[run.id] = state
            return False
        now = time.monotonic()
        if state == before and now - self._told.get(run.id, 0.0) < BETWEEN:
            return True
        news, run.news = run.news, None
        self._states[run.id], self._told[run.id] = state, now
        if state != before or news == "result":
            self._send(summary)
        else:
            run.followers &= self._server.sockets.keys()  # others are gone
            for page in list(run.followers):
                self._send(summary, page)
        return False

    def _send(self, summary: dict[str, Any], page: str | None = None) -> None:
        self._server.send_sync(EVENT, summary, page)
