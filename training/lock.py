"""One process at a time works on a training's folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

_LOCK = ".training.lock"


class TrainingBusyError(RuntimeError):
    """Another process trains in this folder."""


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make the folder and hold it. Raises TrainingBusyError in one sentence where another does."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise TrainingBusyError(
            f"Another process trains in {folder}: wait for it or stop it, or name another folder."
        ) from error
    try:
        yield
    finally:
        lock.release()
