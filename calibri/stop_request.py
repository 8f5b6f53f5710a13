"""A wish that a run ends, left in its folder for whoever works on it: a command, or a server.

A file works across processes, machines that share a disk, and Windows, which has no signals.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .atomic_file import write_atomically

if TYPE_CHECKING:
    from .session import Session

FILE = "stop-request"
STOP, FINISH = "stop", "finish"
"""End after the batch that runs; end the search with the generation that runs."""


class StopRequestedError(Exception):
    """Somebody asked the run to stop; everything is kept."""


def ask(folder: Path, wish: str) -> None:
    """Leave a wish for whoever works on the run in `folder`. Raises OSError."""
    write_atomically(folder / FILE, wish.encode())


def asked(folder: Path) -> str | None:
    """STOP or FINISH where that was asked for and is not withdrawn."""
    try:
        wish = (folder / FILE).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return wish if wish in (STOP, FINISH) else None


def withdraw(folder: Path) -> None:
    """Forget a wish: it was heeded, or is older than the run's going on."""
    (folder / FILE).unlink(missing_ok=True)


def heeding(
    folder: Path, stopped: Callable[[], BaseException] = StopRequestedError
) -> Callable[[Session], None]:
    """What to call between two batches of the run in `folder`: it concludes the search, or raises
    `stopped()`, where that was asked for from now on."""
    withdraw(folder)

    def heed(session: Session) -> None:
        wish = asked(folder)
        if wish is None:
            return
        withdraw(folder)
        if wish == STOP:
            raise stopped()
        session.conclude()

    return heed
