"""Names of preset files as a request may give them: below models/calibri, on every system."""

from __future__ import annotations

import re
from pathlib import Path, PureWindowsPath

from .. import folders

SUFFIX = ".safetensors"
_LONGEST_PART = 200  # bytes, where a file system allows 255: a number may follow
# What Windows takes for a device, whatever its ending.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))}


def parts_of(name: str) -> list[str] | None:
    """The parts of a relative path; None for one that leads elsewhere or that no file can have."""
    windows = PureWindowsPath(name)
    parts = re.split(r"[\\/]", name)
    odd = {"", ".", ".."} & set(parts) or any(
        len(part.encode(errors="replace")) > 255 for part in parts
    )
    if windows.drive or windows.root or odd or not name.isprintable() or ":" in name:
        return None
    return parts if name.endswith(SUFFIX) else None


def new_name(wanted: str) -> Path:
    """A file's relative path for what somebody typed. ValueError where nothing is left of it."""
    if PureWindowsPath(wanted).drive:
        raise ValueError(f"{wanted!r} leads elsewhere: name the file relative to models/calibri.")
    stem = folders.safe_name(wanted.removesuffix(SUFFIX))
    parts = [_shortened(part) for part in stem.parts]
    if taken := next((part for part in parts if part.split(".")[0].lower() in _DEVICES), None):
        raise ValueError(f"{taken!r} is a device on Windows: choose another name.")
    return Path(*parts[:-1], parts[-1] + SUFFIX)


def _shortened(part: str) -> str:
    return part.encode()[:_LONGEST_PART].decode(errors="ignore")
