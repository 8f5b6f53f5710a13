"""All runs of the user folder but those that this ComfyUI works on in the background."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .. import runs
from .events import EVENT
from .foreground import Foreground, Send
from .observed import Observed
from .registry import BusyError, Registry, is_id, to_trash


class Others:
    """Every such run by its id. `send` is the server's."""

    def __init__(self, registry: Registry, send: Send) -> None:
        self._registry, self._send = registry, send
        self._lock = threading.Lock()
        self._known: dict[str, Observed] = {}

    def all(self) -> list[Observed]:
        """Every run, by its id."""
        with self._lock:  # what a prompt has begun meanwhile is among them
            named = runs.all_runs()
            for gone in self._known.keys() - set(named):
                del self._known[gone]
        return [run for name in named if (run := self.find(name)) is not None]

    def find(self, run_id: str) -> Observed | None:
        """The run of this id; None where there is none, or where it is the background's, one
        included that is deleted and whose slice still runs."""
        mine = self._registry.find(run_id)
        if (mine is not None and not mine.elsewhere) or self._registry.is_going(run_id):
            return None
        return self._observed(run_id) if is_id(run_id) else None

    @contextmanager
    def in_prompt(self, run_id: str) -> Iterator[Foreground]:
        """Within, the prompt that runs works on this run."""
        run = self._observed(run_id)
        assert run is not None
        foreground = run.foreground = Foreground(run, self._send)
        try:
            yield foreground
        finally:
            foreground.leave()

    def delete(self, run: Observed) -> None:
        """Put a run into the trash. BusyError where somebody works on it, OSError where it cannot
        be moved."""
        if run.is_worked_on:
            raise BusyError(f"The run {run.id!r} is worked on: stop it first, then delete it.")
        last = run.summary()
        to_trash(run.folder)
        with self._lock:
            self._known.pop(run.id, None)
        self._send(EVENT, {**last, "state": "deleted"}, None)

    def _observed(self, run_id: str) -> Observed | None:
        with self._lock:
            if (
                run_id not in self._known
                and runs.settings_of(runs.runs_folder() / run_id) is not None
            ):
                self._known[run_id] = Observed(run_id)
            return self._known.get(run_id)
