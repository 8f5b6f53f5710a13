"""What a run has found so far, as files: the best preset, and a copy of it where presets are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths

from ...calibri.atomic_file import write_atomically
from .. import folders, runs
from .run import Run

if TYPE_CHECKING:
    from ...calibri.outcome import Best
    from ..calibration_inputs import Prepared


def save_best(run: Run, prepared: Prepared, best: Best) -> None:
    """Save the preset of the best validated mean so far, in the run's folder and for its user.

    There is none where that is the plain model.
    """
    from ...calibri.presets import save_preset
    from ..calibration_result import make_preset, searched_change

    if best.generation == 0:
        return

    config = prepared.config
    samples = len(config.validation_samples())
    change = searched_change(config.reward, best.plain, best.reward, best.gain, samples)
    preset, output = make_preset(prepared, best.vector, (change,)), runs.output_folder(run.id)
    save_preset(run.preset_file, preset, overwrite=True)
    folders.make_folder(output)
    save_preset(output / runs.PRESET, preset, overwrite=True)


def keep_preset(run: Run) -> None:
    """Copy the preset that a finished run recommends from its output folder to its own.

    Where it recommends the plain model, what was the best so far goes.
    """
    recommended = runs.output_folder(run.id) / runs.PRESET
    if recommended.is_file():
        write_atomically(run.preset_file, recommended.read_bytes())
    else:
        run.preset_file.unlink(missing_ok=True)


def publish(run: Run) -> None:
    """Copy the best preset to models/calibri, numbered where its name is another preset's.

    No file is written before there is one, nor where it is there already.
    """
    try:
        data = run.preset_file.read_bytes()
    except FileNotFoundError:
        run.record.preset = None
        return
    folder = folders.new_preset_path(run.id).parent
    folders.make_folder(folder)
    number = 1
    while True:
        name = run.id + (f"-{number}" if number > 1 else "") + ".safetensors"
        path = folder / name
        if not path.exists():
            write_atomically(path, data)
            break
        if path.read_bytes() == data or _is_same(path, run.preset_file):
            break
        number += 1
    folder_paths.filename_list_cache.pop(folders.PRESETS, None)
    run.record.preset, run.news = name, "result"
    run.save()


def _is_same(one: Path, other: Path) -> bool:
    """Whether two presets differ in nothing but when they were made."""
    from ...calibri.presets import PresetError, load_preset

    try:
        first, second = load_preset(one), load_preset(other)
    except PresetError:
        return False
    return replace(first, created="") == replace(second, created="")
