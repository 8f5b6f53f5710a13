"""A calibration in a prompt of this ComfyUI, as pages hear of it while it runs.

It reports from ComfyUI's own thread, which draws for it; the server's loop is left alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import comfy.model_management

from .events import BETWEEN, EVENT

if TYPE_CHECKING:
    from ...calibri.outcome import GenerationSummary
    from .observed import Observed

Send = Callable[[str, dict[str, Any], "str | None"], None]


class Foreground:
    """Calibrate's work on one run, from its beginning to `leave`. `send` is the server's."""

    def __init__(self, run: Observed, send: Send) -> None:
        self.total = 0
        """Images of the whole run, at most; 0 before that is known."""
        self.warning = ""
        """What its last generations say against the reward."""
        self._run, self._send = run, send
        self._told = {"all": 0.0, "followers": 0.0}
        self._lock = threading.Lock()
        self._is_here = True

    def on_batch(self, done: int, total: int) -> None:
        """Count images; told to the pages that follow the run."""
        if not self.total:  # its first: to all
            self.total = total
            self._tell()
        self.total = total
        if self._run.followers and self._is_due("followers"):
            summary = self._run.summary()
            for page in list(self._run.followers):
                self._send(EVENT, summary, page)

    def on_generation(self, summary: GenerationSummary) -> None:
        """A generation has ended; told to all pages."""
        self._run.generations.sigmas[summary.generation] = summary.sigma
        self.warning = summary.warning
        if self._is_due("all"):
            self._tell()

    def leave(self) -> None:
        """The prompt works on the run no longer, however it ended."""
        with self._lock:
            self._is_here = False
            self._run.foreground = None
        self._tell()

    def interrupt(self) -> None:
        """As ComfyUI's Cancel, where it is still this run that is drawn."""
        with self._lock:
            if self._is_here:
                comfy.model_management.interrupt_current_processing()

    def _is_due(self, whom: str) -> bool:
        now = time.monotonic()
        is_due = now - self._told[whom] >= BETWEEN
        if is_due:
            self._told[whom] = now
        return is_due

    def _tell(self) -> None:
        self._send(EVENT, self._run.summary(), None)
