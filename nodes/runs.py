"""Run folders. `<user directory>/calibri/runs/<id>/` holds one calibration's journal and state,
`output/calibri/<id>/` its report, preset and pictures.

A run is known by its settings. The same settings find their folder again and continue its journal,
in the foreground or in the background; other settings under the same name get a folder of their own
(`<name>-2`, …), so nothing is lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folder_paths

from .folders import safe_name

CONFIG = "config.json"
JOURNAL = "journal.sqlite"
PRESET = "preset.safetensors"
REPORT = "report.json"
REPORT_PICTURE = "report.png"
BEFORE_AFTER = "before_after.png"
_NAME = "run_name"  # in CONFIG, beside the settings


def runs_folder() -> Path:
    """Where the folders of all runs are."""
    return Path(folder_paths.get_user_directory()) / "calibri" / "runs"


def output_folder(run_id: str) -> Path:
    """Where a run leaves what its user looks at."""
    return Path(folder_paths.get_output_directory()) / "calibri" / run_id


def run_folder(name: str, settings: dict[str, Any]) -> Path:
    """The folder of the run with these settings (`run_record`), made if there is none.

    Its name is the run's id. Raises ValueError for a name that leads elsewhere.
    """
    return same_run(name, settings) or new_run(name, settings)


def same_run(name: str, settings: dict[str, Any]) -> Path | None:
    """The folder of the run with these settings, None where there is none."""
    return next((f for f in runs_named(name) if settings_of(f) == settings), None)


def new_run(name: str, settings: dict[str, Any]) -> Path:
    """The next free folder of this name, made for a run with these settings."""
    from ..calibri.report import save_report

    for folder in _candidates(name):
        if _is_free(folder) and _claimed(folder):
            break
    try:
        save_report(folder / CONFIG, {_NAME: name, **settings})
    except BaseException:
        (folder / CONFIG).unlink(missing_ok=True)
        raise
    return folder


def runs_named(name: str) -> list[Path]:
    """The folders of the runs of this name, oldest first."""
    stem = _stem(name)
    numbered = re.compile(re.escape(stem) + r"(?:-(\d+))?")
    # A folder "night-2" may be the second of "night", or the first that was named so.
    found = {
        int(match.group(1) or 1): folder
        for folder in runs_folder().glob(f"{stem}*")
        if (match := numbered.fullmatch(folder.name))
        and (held := _config(folder)) is not None
        and (folder.name == stem or _stem(held.get(_NAME, name)) == stem)
    }
    return [folder for _, folder in sorted(found.items())]


def settings_of(folder: Path) -> Any:
    """The settings a folder was made for; None where it is no run's folder."""
    held = _config(folder)
    return None if held is None else {k: value for k, value in held.items() if k != _NAME}


def find_run(run_id: str) -> Path:
    """The folder of the run that is called so. Raises ValueError where there is none."""
    folder = runs_folder() / run_id
    named = Path(run_id).name == run_id and settings_of(folder) is not None
    if not named:
        known = ", ".join(all_runs()) or "there are none"
        raise ValueError(f"There is no run {run_id!r} in {runs_folder()} ({known}).")
    return folder


def all_runs() -> list[str]:
    """Every run's id."""
    return sorted(file.parent.name for file in runs_folder().glob(f"*/{CONFIG}"))


def check_settings_of(run_id: str, settings: dict[str, Any]) -> None:
    """Raises ValueError where a run was made with other settings, and says which."""
    from ..calibri.configuration import differing_settings

    if changed := differing_settings(settings_of(find_run(run_id)), settings):
        raise ValueError(
            f"The run {run_id!r} cannot go on with this: {'; '.join(changed)}. Where its workflow "
            "changes the model by other nodes, go on with it in the page."
        )


def host_versions() -> dict[str, str]:
    """ComfyUI's version, for the journal."""
    from comfyui_version import __version__

    return {"comfyui": __version__}


def as_output(path: Path) -> dict[str, str]:
    """A picture of a run as ComfyUI names files of its output folder to the browser."""
    root = Path(folder_paths.get_output_directory())
    folder = path.parent.relative_to(root).as_posix()
    return {"filename": path.name, "subfolder": folder, "type": "output"}


def _config(folder: Path) -> dict[str, Any] | None:
    try:
        held = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return held if isinstance(held, dict) else None


def _candidates(name: str) -> Iterator[Path]:
    stem = _stem(name)
    yield runs_folder() / stem
    number = 2
    while True:
        yield runs_folder() / f"{stem}-{number}"
        number += 1


def _stem(name: str) -> str:
    # An id is one word of an address: no folders within folders.
    return "-".join(safe_name(name).parts)


def _claimed(folder: Path) -> bool:
    """Take a folder, unless another process has just done so."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / CONFIG).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _is_free(folder: Path) -> bool:
    """Whether nobody's files are in a run's folders.

    A folder that could not be filled, on a full disk say, is taken at the next try.
    """
    places = (folder, output_folder(folder.name))
    return not any(place.exists() and any(place.iterdir()) for place in places)
