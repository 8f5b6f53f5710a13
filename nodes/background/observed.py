"""Runs that this ComfyUI does not work on in the background: Calibrate's, in a prompt, and those of
the command line or of another ComfyUI. They are read from their journals, also while they grow; all
that is done to them is to ask whoever works on one to stop.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...calibri import stop_request
from .. import runs
from .generations import Generations
from .run import ELSEWHERE, NOWHERE, PROMPT, next_revision

if TYPE_CHECKING:
    from .foreground import Foreground

RUNNING, RESTS, FINISHED = "running", "rests", "finished"
WORDS = {
    stop_request.STOP: "It was asked to stop after the batch that it draws.",
    stop_request.FINISH: "It was asked to finish with this generation.",
}


@dataclass
class _Read:
    """What a journal says of its run. `phase` is what was begun last."""

    generation: int = 0
    generations: int = 0
    images: int = 0
    seconds: float = 0.0
    phase: str = "validation"
    is_over: bool = False
    problem: str = ""
    best: int | None = None
    reward: float | None = None
    plain: float | None = None
    gain: dict[str, float] | None = None


@dataclass
class Observed:
    """A run as its journal tells of it. `foreground` is the prompt that works on it, where one of
    this ComfyUI does."""

    id: str
    foreground: Foreground | None = None
    preset: str | None = None
    """The preset's name in models/calibri, once it was saved from here."""
    followers: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _known: tuple[object, _Read] | None = None

    def __post_init__(self) -> None:
        self.generations = Generations(self.folder)

    @property
    def folder(self) -> Path:
        return runs.runs_folder() / self.id

    @property
    def is_worked_on(self) -> bool:
        """Whether a prompt of this ComfyUI, or another process, works on it."""
        from ...calibri.journal_file import is_locked

        return self.foreground is not None or is_locked(self._journal)

    def course(self, since: int = 0) -> list[dict[str, Any]]:
        """`Generations.since`; nothing of a journal that cannot be read."""
        from ...calibri.journal import JournalError

        try:
            return self.generations.since(since, self._read().generations)
        except JournalError:
            return []

    def coordinates(self) -> list[str]:
        """`Generations.coordinates`; nothing of a journal that cannot be read."""
        from ...calibri.journal import JournalError

        try:
            return self.generations.coordinates()
        except JournalError:
            return []

    def summary(self) -> dict[str, Any]:
        """As `Run.summary`."""
        foreground, worked_on = self.foreground, self.is_worked_on
        read = self._read()
        where = PROMPT if foreground else ELSEWHERE if worked_on else NOWHERE
        state = RUNNING if worked_on else FINISHED if read.is_over else RESTS
        total = foreground.total if foreground else 0
        left = None
        if read.images and total:
            left = read.seconds / read.images * max(0, total - read.images)
        return {
            "id": self.id,
            "revision": next_revision(),
            "title": self.id,
            "created": self._created(),
            "where": where,
            "state": state,
            "reason": self._reason(where, state, read),
            "generation": read.generation,
            "generations": read.generations,
            "images": read.images,
            "total": read.images if state == FINISHED else total,
            "phase": "done" if state == FINISHED else read.phase,
            "reward": read.reward,
            "plain": read.plain,
            "best": read.best,
            "gain": read.gain,
            "seconds": read.seconds,
            "seconds_left": left,
            "slices": 0,
            "longest_wait": 0.0,
            "idle_seconds": 0.0,
            "preset": self.preset,
        }

    def _created(self) -> float:
        try:
            return (self.folder / runs.CONFIG).stat().st_mtime
        except OSError:  # it has just gone
            return 0.0

    def _reason(self, where: str, state: str, read: _Read) -> str:
        if state == RESTS:
            return read.problem or (
                "Nobody works on it. Queue its workflow to go on, or run: "
                f"comfyui-calibri resume {self.id}"
            )
        if state == FINISHED:
            return ""
        asked = stop_request.asked(self.folder)
        if asked is not None:
            return WORDS[asked]
        if where == ELSEWHERE:
            return "The command line, or another ComfyUI, works on it."
        return self.foreground.warning if self.foreground else ""

    @property
    def _journal(self) -> Path:
        return self.folder / runs.JOURNAL

    def _read(self) -> _Read:
        """What the journal and the report say, read again where either has changed."""
        from ...calibri.journal import JournalError

        with self._lock:
            report = runs.output_folder(self.id) / runs.REPORT
            log = self._journal.with_name(self._journal.name + "-wal")
            mark = tuple(_mark(file) for file in (self._journal, log, report))
            if self._known is None or self._known[0] != mark:
                try:
                    self._known = (mark, self._read_anew(report))
                # One that is in the making has nothing yet; one that is damaged hides no other.
                except (JournalError, ValueError) as error:
                    return _Read(problem=str(error))
            return self._known[1]

    def _read_anew(self, report: Path) -> _Read:
        from ...calibri.budget import FINISHED as ENDED
        from ...calibri.journal import Journal

        if not self._journal.is_file():
            return _Read()
        with Journal.read(self._journal) as journal:
            config = journal.config() or {}
            events = journal.events()
            ended = next((e for e in reversed(events) if e.kind == ENDED), None)
            budgets = (e.detail.get("generations") for e in reversed(events))
            images, seconds = journal.drawn()
            read = _Read(
                generations=next((budget for budget in budgets if budget), 0),
                images=images,
                seconds=seconds,
                phase=journal.last_role().split(" ")[0] or "validation",
                is_over=ended is not None
                and ended.detail.get("searched") == journal.last_generation(),
            )
        read.generation = self.generations.last()
        best = self.generations.best(config.get("seed", 0))
        if best is not None:
            read.best, read.reward, read.plain, gain = best
            read.gain = {"mean": gain.mean, "low": gain.low, "high": gain.high}
        if read.is_over:
            _add_outcome(read, report)
        return read


def _add_outcome(read: _Read, report: Path) -> None:
    """What a finished run recommends and gains, on samples that no choice has seen."""
    try:
        told = json.loads(report.read_text(encoding="utf-8"))
        gain = {name: float(told["gain"][name]) for name in ("mean", "low", "high")}
        best = int(told["recommended"]["generation"])
        reward, plain = float(told["after"]["mean"]), float(told["before"]["mean"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    read.best, read.reward, read.plain, read.gain = best, reward, plain, gain


def _mark(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
