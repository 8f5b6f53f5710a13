"""What the command line says while it works: lines and a bar, on the terminal's error channel."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

EVERY = 15  # seconds between two lines where there is no terminal


class Bar:
    """How far a command has come, in images: one line that moves, or now and then a line of a log.

    It goes to stderr, so that stdout is what the command answers. `of` names what is counted.
    """

    def __init__(self, of: str = "images") -> None:
        self.of = of
        self._terminal = sys.stderr.isatty()
        self._began = self._told = time.monotonic()
        self._width = 0

    def count(self, done: int, total: int) -> None:
        """`done` of `total` are there."""
        now = time.monotonic()
        share, seconds = 100 * done / max(total, 1), now - self._began
        text = f"  {share:3.0f} %  {done} of {total} {self.of}, {seconds:.0f} s"
        if self._terminal:
            self._write(f"\r{text}".ljust(self._width + 1))
            self._width = len(text)
        elif now - self._told >= EVERY:
            self._write(f"{text}\n")
            self._told = now

    def say(self, text: str) -> None:
        """A line of its own, in the bar's place."""
        for line in text.splitlines():
            self._write(("\r" if self._width else "") + line.ljust(self._width) + "\n")
            self._width = 0

    def end(self) -> None:
        """Leave the bar where it stands."""
        if self._width:
            self._write("\n")
            self._width = 0

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


@contextmanager
def bar(of: str = "images") -> Iterator[Bar]:
    """A bar that is left in order, whatever happens."""
    shown = Bar(of)
    try:
        yield shown
    finally:
        shown.end()
