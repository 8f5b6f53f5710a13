"""Preset files on disk: found, added, renamed, put into the trash and taken out again.

Nothing is ever overwritten, and nothing outside models/calibri and the trash is touched: a link
that leads out of it is as good as not there. The trash is `<user directory>/calibri/trash`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import folder_paths

from ...calibri.atomic_file import write_atomically, write_new
from ...calibri.presets import Preset, load_preset
from .. import folders
from .names import SUFFIX, new_name, parts_of

_FILE, _NOTE = f"preset{SUFFIX}", "from.json"
_ID = re.compile(r"\d{8}-\d{6}(-\d+)?", re.ASCII)
_MOST_KEPT = 2000  # presets in memory

_writing = threading.Lock()
_read: dict[Path, tuple[tuple[int, int], Preset]] = {}


class MissingError(ValueError):
    """There is no such preset."""


class TakenError(ValueError):
    """It cannot be done to this preset, or to this name."""


@dataclass(frozen=True)
class Place:
    """A preset's file in one of the folders that presets are in."""

    root: Path
    path: Path

    @property
    def name(self) -> str:
        """What Load Calibri Preset calls it."""
        return str(self.path.relative_to(self.root))

    @property
    def yours(self) -> bool:
        """Whether it is the user's: the demo's belongs to the pack."""
        return not self.root.is_relative_to(folders.DEMO_WEIGHTS)

    def preset(self) -> Preset:
        """What the file holds, read once. Raises PresetError."""
        state = self.path.stat()
        mark = (state.st_mtime_ns, state.st_size)
        known = _read.get(self.path)
        if known is None or known[0] != mark:
            if len(_read) >= _MOST_KEPT:
                _read.clear()
            _read[self.path] = known = (mark, load_preset(self.path))
        return known[1]


def places() -> list[Place]:
    """All preset files, in the order of the nodes' lists."""
    found = (_place(parts) for name in folders.preset_files() if (parts := parts_of(name)))
    return [place for place in found if place is not None]


def find(name: str) -> Place:
    """The preset file of this name. Raises MissingError."""
    parts = parts_of(name)
    place = None if parts is None else _place(parts)
    if place is None:
        raise MissingError(f"There is no preset {name[:200]!r}: list /calibri/presets.")
    return place


def add(data: bytes, name: str) -> tuple[Place, bool]:
    """Keep a checked preset's file, numbered where its name is taken; whether it is new.

    Where a file holds the same, that is it. Raises ValueError for a name that cannot be one.
    """
    wanted = new_name(name)
    with _writing:
        for place in places():
            if place.path.stat().st_size == len(data) and place.path.read_bytes() == data:
                return place, False
        return _kept(data, wanted), True


def rename(place: Place, name: str) -> Place:
    """Give a preset another name in its folder. TakenError where it is another's already."""
    _check_yours(place)
    path = place.root / new_name(name)
    if path == place.path:
        return place
    with _writing:
        folders.make_folder(path.parent)
        if not _taken_over(path):
            raise TakenError(f"There is a preset {path.name!r} already: choose another name.")
        try:
            os.replace(place.path, path)
        except OSError:
            path.unlink()
            raise
    _forget_list()
    return Place(place.root, path)


def discard(place: Place) -> Path:
    """Put a preset into the trash; the folder it is in then."""
    _check_yours(place)
    with _writing:
        folder = folders.make_new_folder(trash_folder() / time.strftime("%Y%m%d-%H%M%S"))
        note = json.dumps({"name": place.name.replace("\\", "/")})
        write_atomically(folder / _NOTE, note.encode())
        shutil.move(place.path, folder / _FILE)
    _forget_list()
    return folder


def discarded() -> list[tuple[str, str, Path]]:
    """What is in the trash, newest first: its id, what it was called, its folder."""
    if not trash_folder().is_dir():
        return []
    found = []
    for folder in sorted(trash_folder().iterdir(), reverse=True):
        name = _noted(folder)
        if name is not None:
            found.append((folder.name, name, folder))
    return found


def restore(trashed: str) -> Place:
    """Take a preset out of the trash, under its old name or a numbered one. Raises MissingError."""
    folder = trash_folder() / trashed
    name = _noted(folder) if _ID.fullmatch(trashed) else None
    parts = None if name is None else parts_of(name)
    if parts is None:
        raise MissingError(f"There is nothing {trashed[:200]!r} in the trash: list /calibri/trash.")
    with _writing:
        place = _kept((folder / _FILE).read_bytes(), Path(*parts))
        shutil.rmtree(folder)
    return place


def trash_folder() -> Path:
    """Where deleted presets are."""
    return Path(folder_paths.get_user_directory()) / "calibri" / "trash"


def _place(parts: list[str]) -> Place | None:
    for root in map(Path, folder_paths.get_folder_paths(folders.PRESETS)):
        path = root.joinpath(*parts)
        if path.is_file() and path.resolve().is_relative_to(root.resolve()):
            return Place(root, path)
    return None


def _check_yours(place: Place) -> None:
    if not place.yours:
        raise TakenError(
            f"The preset {place.name!r} belongs to the demo: copy it as text to have one of your "
            "own."
        )


def _kept(data: bytes, wanted: Path) -> Place:
    """A new file of this name in the user's folder, numbered where it is taken."""
    root = Path(folder_paths.get_folder_paths(folders.PRESETS)[0])
    path, number = root / wanted, 1
    folders.make_folder(path.parent)
    while not write_new(path, data):
        number += 1
        path = (root / wanted).with_name(f"{wanted.stem}-{number}{SUFFIX}")
    _forget_list()
    return Place(root, path)


def _taken_over(path: Path) -> bool:
    """Whether a name was free; an empty file holds it then, to be replaced at once."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _forget_list() -> None:
    """ComfyUI keeps its list of files while a folder's time stays, which may be a second."""
    folder_paths.filename_list_cache.pop(folders.PRESETS, None)


def _noted(folder: Path) -> str | None:
    """What a folder in the trash says its preset was called; None where it is no such folder."""
    try:
        name = json.loads((folder / _NOTE).read_text(encoding="utf-8"))["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    usable = isinstance(name, str) and parts_of(name) and (folder / _FILE).is_file()
    return name if usable else None
