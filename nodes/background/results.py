"""A run's preset as a file where presets are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import folder_paths

from ...calibri.atomic_file import write_new
from .. import folders, runs
from .run import Run


def publish(run: Run) -> None:
    """`published`, and written down."""
    run.record.preset = published(run.id)
    if run.record.preset is not None:
        run.news = "result"
        run.save()


def published(run_id: str) -> str | None:
    """Copy a run's best preset to models/calibri, numbered where its name is another preset's; the
    name that it has there.

    None, with no file written, before there is one; one that is there already is not kept twice.
    """
    preset = runs.runs_folder() / run_id / runs.PRESET
    try:
        data = preset.read_bytes()
    except FileNotFoundError:
        return None
    folder = folders.new_preset_path(run_id).parent
    folders.make_folder(folder)
    number = 1
    while True:
        name = run_id + (f"-{number}" if number > 1 else "") + ".safetensors"
        path = folder / name
        if write_new(path, data) or path.read_bytes() == data or _is_same(path, preset):
            break
        number += 1
    folder_paths.filename_list_cache.pop(folders.PRESETS, None)
    return name


def _is_same(one: Path, other: Path) -> bool:
    """Whether two presets differ in nothing but when they were made."""
    from ...calibri.presets import PresetError, load_preset

    try:
        first, second = load_preset(one), load_preset(other)
    except PresetError:
        return False
    return replace(first, created="") == replace(second, created="")
