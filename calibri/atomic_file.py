"""Files that are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write a temporary file beside `path`, then rename it. OSError leaves `path` as it was."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp's files are for their owner alone
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def save_atomically(path: Path, data: bytes, name: str) -> None:
    """`write_atomically` for what a person asked to be saved. OSError says what to do, and calls it
    by `name`, "preset" for example.
    """
    try:
        write_atomically(path, data)
    except OSError as error:
        mend = "free some space" if error.errno == errno.ENOSPC else "check the folder"
        raise OSError(
            f"The {name} {path} could not be saved ({error.strerror}): {mend} or save it "
            "elsewhere; nothing was written."
        ) from error
