"""Run folders: `output/calibri/<name>/` holds one calibration's journal, report and pictures.

A run is known by its settings. The same settings find their folder again and continue its journal;
other settings under the same name get a folder of their own (`<name>-2`, …), so nothing is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths

from ..calibri.report import save_report
from .folders import safe_name

if TYPE_CHECKING:
    from ..calibri.coefficients import CoefficientSpace
    from ..calibri.configuration import RunConfig

CONFIG = "config.json"
JOURNAL = "journal.sqlite"
PRESET = "preset.safetensors"
REPORT = "report.json"
REPORT_PICTURE = "report.png"
BEFORE_AFTER = "before_after.png"


def run_folder(name: str, settings: Mapping[str, Any]) -> Path:
    """The folder of the run with these settings, made if there is none; `settings` are JSON values.

    Raises ValueError for a name that leads elsewhere.
    """
    wanted = json.loads(json.dumps(settings))
    for folder in _candidates(safe_name(name)):
        if _settings_of(folder) == wanted:
            return folder
        if not folder.exists():
            save_report(folder / CONFIG, wanted)
            return folder
    raise AssertionError("there is always a next folder")


def settings_of(config: RunConfig, space: CoefficientSpace) -> dict[str, Any]:
    """What tells one run from another: all but the budget, which a run may be given more of."""
    settings = asdict(config)
    del settings["generations"], settings["max_seconds"]
    return {
        **settings,
        "family": space.backbone.family,
        "granularity": space.granularity,
        "coefficients": space.names,
    }


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
        return json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError):
        return None
