"""One run of this ComfyUI process: its record, and what it holds in memory while it lives."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .. import runs
from .generations import Generations
from .record import RUNNING, Record

if TYPE_CHECKING:
    from ...calibri.journal import Journal
    from ...calibri.presets import Preset
    from ...calibri.session import Session
    from ...calibri.settings import RunSettings
    from ..calibration_inputs import Prepared
    from .pace import Pace

# Where a run works: in slices of this ComfyUI, in a prompt of it, in another process, nowhere.
BACKGROUND, PROMPT, ELSEWHERE, NOWHERE = "background", "prompt", "elsewhere", "nowhere"
MANY_YIELDS = 3  # batches given up in a row
# What is told of runs, in its order: an answer may reach a page after a later event. It begins
# above the numbers of ComfyUI's earlier starts, which a page may remember.
_revisions = itertools.count(time.time_ns() // 1000)


def next_revision() -> int:
    """A number larger than all before it, below 2**53."""
    return next(_revisions)


class Run:
    """A run's record and its inputs. Fields change under `lock` only.

    `prepared` is None until its node was executed since ComfyUI's start; `session` and `journal`
    are open from its first slice until it rests.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.lock = threading.RLock()
        self.prepared: Prepared | None = None
        self.pace: Pace | None = None
        self.session: Session | None = None
        self.journal: Journal | None = None
        self.settings: RunSettings | None = None
        self.start: Preset | None = None
        """What was asked for last and is not written down yet, and the preset it begins at."""
        self.concluded = False
        """Whether the session has been told to end its search."""
        self.in_slice = False
        self.deleted = False
        self.generations = Generations(self.folder)
        self.followers: set[str] = set()
        self.news: Literal["result", "batch"] | None = None
        """What pages have not heard of yet: a result for all, a batch for those that follow."""

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def folder(self) -> Path:
        return runs.runs_folder() / self.id

    @property
    def preset_file(self) -> Path:
        """The best so far, from the first validation on; the output folder has a copy."""
        return self.folder / runs.PRESET

    @property
    def goes_on(self) -> bool:
        """Whether the run wants its next batch."""
        return self.record.state == RUNNING and not self.deleted

    @property
    def elsewhere(self) -> bool:
        """Whether another ComfyUI, or a calibration in the foreground, works on the run."""
        from ...calibri.journal_file import is_locked

        with self.lock:
            ours = self.in_slice or self.journal is not None
            return not ours and is_locked(self.folder / runs.JOURNAL)

    @property
    def best(self) -> str:
        """Names the best so far, "" before there is one."""
        progress = self.record.progress
        if progress.best_generation is None:
            return ""
        return f"{self.id} {progress.best_generation} {progress.reward!r}"

    def course(self, since: int = 0) -> list[dict[str, Any]]:
        """`Generations.since`."""
        progress = self.record.progress
        # Before its first image the journal may be in the making.
        return self.generations.since(since, progress.generations) if progress.images else []

    def coordinates(self) -> list[str]:
        """`Generations.coordinates`."""
        return self.generations.coordinates()

    def change(self, state: str, reason: str = "") -> None:
        """Take another state and write it down."""
        with self.lock:
            self.record.state, self.record.reason = state, reason
            self.news = "result"
            self.save()

    def save(self) -> None:
        """Write the record down; a full disk loses no more than the record's last change."""
        with self.lock:
            if not self.deleted:
                try:
                    self.record.save(self.folder)
                except OSError as error:
                    logging.warning("Calibri: the state of run %s is not saved: %s", self.id, error)

    def keep_settings(self) -> None:
        """Leave what was asked for in the run's folder; its journal must be open."""
        from ..run_settings import keep_settings

        with self.lock:
            if self.settings is not None:
                keep_settings(self.folder, self.settings, self.start)
            self.settings = self.start = None

    def close_session(self) -> None:
        """Close the journal: others may write it, the next slice opens it again."""
        with self.lock:
            journal, self.session, self.journal = self.journal, None, None
            self.concluded = False
        if journal is not None:
            journal.close()

    def let_go(self) -> None:
        """Give up the journal and all that the run's inputs hold in memory."""
        self.close_session()
        with self.lock:
            self.prepared = self.pace = None

    def summary(self, waits_for: str | None = None) -> dict[str, Any]:
        """What pages and scripts are told; `waits_for` is the title of a run that goes first."""
        with self.lock:
            record, progress = self.record, self.record.progress
            state, reason = record.state, record.reason
            if state == RUNNING and waits_for is not None:
                state, reason = "waiting", f"Waits for the run {waits_for!r}."
            elif state == RUNNING and record.yields >= MANY_YIELDS:
                reason = (
                    "It gets nowhere: your pauses are shorter than its batches, which are given up "
                    "each time. Leave ComfyUI alone for longer, or pause the run."
                )
            elif state == RUNNING:
                reason = progress.warning
            left = None
            if record.state == RUNNING and progress.drawn:
                left = progress.seconds / progress.drawn * (progress.total - progress.images)
            return {
                "id": record.id,
                "revision": next_revision(),
                "title": record.title,
                "created": record.created,
                "where": BACKGROUND,
                "state": state,
                "reason": reason,
                "generation": progress.generation,
                "generations": progress.generations,
                "images": progress.images,
                "total": progress.total,
                "phase": progress.phase,
                "reward": progress.reward,
                "plain": progress.plain,
                "best": progress.best_generation,
                "gain": progress.gain,
                "seconds": progress.seconds,
                "seconds_left": left,
                "slices": record.slices,
                "longest_wait": record.longest_wait,
                "idle_seconds": record.idle_seconds,
                "preset": record.preset,
            }
