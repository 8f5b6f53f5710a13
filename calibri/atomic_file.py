"""Files that are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write a temporary file beside `path`, then rename it. OSError leaves `path` as it was."""
    written = _written_beside(path, data)
    try:
        os.replace(written, path)
    except BaseException:
        written.unlink(missing_ok=True)
        raise


def write_new(path: Path, data: bytes) -> bool:
    """`write_atomically` where `path` is free; False, with nothing written, where it is taken.

    Of several writers of one name, in any process, one gets it.
    """
    written = _written_beside(path, data)
    try:
        os.link(written, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links, exFAT for example
        return _taken_over(written, path)
    finally:
        written.unlink(missing_ok=True)
    return True


def _written_beside(path: Path, data: bytes) -> Path:
    """A temporary file beside `path` that holds `data`, on the disk."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp's files are for their owner alone
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def _taken_over(written: Path, path: Path) -> bool:
    """Put a written file to `path` if that is free: an empty file holds the name meanwhile."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    try:
        os.replace(written, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return True


def save_atomically(path: Path, data: bytes, name: str, overwrite: bool = True) -> None:
    """`write_atomically` for what a person asked to be saved. OSError says what to do, and calls it
    by `name`, "preset" for example; it is a FileExistsError where `path` is taken and not to be
    overwritten.
    """
    try:
        if overwrite:
            write_atomically(path, data)
            return
        is_new = write_new(path, data)
    except OSError as error:
        mend = "free some space" if error.errno == errno.ENOSPC else "check the folder"
        raise OSError(
            f"The {name} {path} could not be saved ({error.strerror}): {mend} or save it "
            "elsewhere; nothing was written."
        ) from error
    if not is_new:
        raise FileExistsError(
            f"The {name} {path} exists already: choose another name or allow overwriting."
        )
