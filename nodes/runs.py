"""Run folders: `output/calibri/<name>/` holds one calibration's journal, report and pictures.

A run is known by its settings. The same settings find their folder again and continue its journal;
other settings under the same name get a folder of their own (`<name>-2`, …), so nothing is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folder_paths

from ..calibri.report import save_report
from .folders import safe_name

CONFIG = "config.json"
JOURNAL = "journal.sqlite"
PRESET = "preset.safetensors"
REPORT = "report.json"
REPORT_PICTURE = "report.png"
BEFORE_AFTER = "before_after.png"


def run_folder(name: str, settings: dict[str, Any]) -> Path:
    """The folder of the run with these settings (`run_record`), made if there is none.

    Raises ValueError for a name that leads elsewhere.
    """
    for folder in _candidates(safe_name(name)):
        if _settings_of(folder) == settings:
            return folder
        # A folder that could not be filled, on a full disk say, is taken at the next try.
        if not folder.exists() or not any(folder.iterdir()):
            save_report(folder / CONFIG, settings)
            return folder
    raise AssertionError("there is always a next folder")


def as_output(path: Path) -> dict[str, str]:
    """A picture of a run as ComfyUI names files of its output folder to the browser."""
    root = Path(folder_paths.get_output_directory())
    folder = path.parent.relative_to(root).as_posix()
    return {"filename": path.name, "subfolder": folder, "type": "output"}


def _candidates(name: Path) -> Iterator[Path]:
    root = Path(folder_paths.get_output_directory()) / "calibri"
    yield root / name
    number = 2
    while True:
        yield root / name.with_name(f"{name.name}-{number}")
        number += 1


def _settings_of(folder: Path) -> Any:
    """The settings a folder was made for; None where it is no run's folder."""
    try:
        return json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
