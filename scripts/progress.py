"""Progress in a terminal or a CI log: one line when a step begins, one with its seconds when it
ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


def say(line: str = "") -> None:
    """Print a line at once, so that it stands before what a child process prints."""
    print(line, flush=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce `title`, run the body, say how long it took and whether it failed."""
    say(f"==> {title}")
    started = time.monotonic()
    try:
        yield
    except BaseException:
        say(f"    stopped after {time.monotonic() - started:.0f} s")
        raise
    say(f"    done in {time.monotonic() - started:.0f} s")
