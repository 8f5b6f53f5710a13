"""All runs of this ComfyUI: those of earlier sessions from their folders, and those begun since.

Runs take turns in the order in which they were queued: the next begins when the one before is
finished, paused or stopped.
"""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import runs
from .record import FINISHED, INTERRUPTED, PAUSED, RUNNING, STOPPED, Record
from .results import publish
from .run import Run

TRASH = ".trash"
ENDED = "ComfyUI ended while it ran."
ELSEWHERE = "Another ComfyUI, or Calibrate, works on it."
_ID = re.compile(r"[\w+-][\w.+-]*")


class BusyError(RuntimeError):
    """Another process works on a run; the message says what to do."""


class Registry:
    """Every run by its id. `wake` is called when a run may have something to do."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._runs: dict[str, Run] = {}
        self._deleted: list[dict[str, Any]] = []
        self.wake: Callable[[], None] = lambda: None

    def load(self) -> None:
        """Take up the runs of earlier sessions. One that was running is interrupted: it is offered
        again, and does not begin by itself."""
        with self._lock:
            for folder in sorted(runs.runs_folder().glob("*")):
                record = Record.load(folder) if is_id(folder.name) else None
                if record is None or folder.name in self._runs:
                    continue
                run = self._runs[record.id] = Run(record)
                if run.elsewhere:  # its files are another's to write
                    record.state, record.reason = INTERRUPTED, ELSEWHERE
                elif record.state == RUNNING:
                    run.change(INTERRUPTED, ENDED)

    def claim(self, run: Run) -> None:
        """See that nobody else works on a run that is to go on or to be deleted, or raise
        BusyError."""
        with run.lock:
            if run.elsewhere:
                raise BusyError(
                    f"The run {run.id!r} is worked on by another ComfyUI, or by Calibrate: stop it "
                    "there, or wait until it has ended."
                )
            if run.record.reason == ELSEWHERE:  # what was read then is old
                run.record = Record.load(run.folder) or run.record
                if run.record.state == RUNNING:
                    run.change(INTERRUPTED, ENDED)

    def all(self) -> list[Run]:
        """Every run, in the order in which they were begun."""
        with self._lock:
            known = (run for run in self._runs.values() if not run.deleted)
            return sorted(known, key=lambda run: run.record.created)

    def find(self, run_id: str) -> Run | None:
        """The run of this id; None where there is none."""
        with self._lock:
            run = self._runs.get(run_id)
            return None if run is None or run.deleted else run

    def current(self) -> Run | None:
        """The run whose turn it is."""
        with self._lock:
            going = [run for run in self._runs.values() if run.goes_on]
            return min(going, key=lambda run: run.record.queued, default=None)

    def waits_for(self, run: Run) -> str | None:
        """The title of the run that goes before this one, if one does."""
        current = self.current()
        return None if current is None or current is run else current.record.title

    def add(self, record: Record) -> Run:
        """Take up a run that was just made."""
        with self._lock:
            run = self._runs[record.id] = Run(record)
            run.save()
            return run

    def queue(self, run: Run, concluding: bool | None = None) -> None:
        """Let a run go on, after those that go on already."""
        with run.lock:
            if not run.goes_on:
                run.record.queued = time.time()
            if concluding is not None:
                run.record.concluding = concluding
            run.record.interrupts = 0
            run.change(RUNNING)
        self.wake()

    def rest(self, run: Run, state: str, reason: str = "") -> None:
        """Let a run pause, stop or finish. A slice that runs sees it and ends."""
        with run.lock:
            run.change(state, reason)
            if not run.in_slice:
                settle(run)
        self.wake()

    def delete(self, run: Run) -> None:
        """Forget a run; its folder goes to the trash, at the end of its slice if one runs.

        BusyError where another ComfyUI works on it.
        """
        with self._lock, run.lock:
            self.claim(run)
            run.deleted = True
            self._deleted.append(run.summary())
            if not run.in_slice:
                settle(run)
        self.wake()

    def is_going(self, run_id: str) -> bool:
        """Whether a run was deleted and its slice has yet to end: its folder is still there."""
        with self._lock:
            run = self._runs.get(run_id)
        if run is None:
            return False
        with run.lock:
            return run.deleted and run.in_slice

    def take_deleted(self) -> list[dict[str, Any]]:
        """The last summaries of runs that were deleted since the last call."""
        with self._lock:
            deleted, self._deleted = self._deleted, []
            return deleted


def is_id(name: str) -> bool:
    """Whether a run's folder may have this name."""
    return _ID.fullmatch(name) is not None


def settle(run: Run) -> None:
    """What is left to do for a run that rests, once no slice of it runs."""
    if run.deleted:
        run.let_go()
        try:
            to_trash(run.folder)
        except OSError as error:
            run.deleted = False
            run.change(PAUSED, f"It could not be moved to the trash: {error}")
    elif run.record.state in (STOPPED, FINISHED):
        try:
            publish(run)
        except OSError as error:
            run.change(run.record.state, f"Its preset is not in models/calibri: {error}")
        finally:
            run.let_go()
    elif run.record.state != RUNNING:
        run.close_session()


def to_trash(folder: Path) -> None:
    """Move a run's folder to the trash of the runs folder. Raises OSError."""
    if not folder.exists():
        return
    trash = runs.runs_folder() / TRASH
    trash.mkdir(parents=True, exist_ok=True)
    first = trash / f"{folder.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    target, number = first, 2
    while target.exists():
        target, number = first.with_name(f"{first.name}-{number}"), number + 1
    shutil.move(folder, target)
