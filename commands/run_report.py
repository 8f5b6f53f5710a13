"""`report`: what a run has found, finished or not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from .exit_codes import BAD_INPUT, sentences
from .run_options import Base, ComfyUI, Json, Output, User

if TYPE_CHECKING:
    from ..calibri.run_state import RunState

PICTURE = "course.png"


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="As `status` lists them.")],
    to: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads it at run time
        typer.Option("--to", help="A folder for the numbers and a picture of the course so far."),
    ] = None,
    comfyui: ComfyUI = None,
    base_directory: Base = None,
    user_directory: User = None,
    output_directory: Output = None,
    as_json: Json = False,
) -> None:
    """Say what a run has found: the report of one that ended, else how far it is.

    Nothing is computed and nothing disturbed; another process may work on the run meanwhile. Exits
    with 0, or with 2 where there is no such run.
    """
    from ..nodes.headless import find_comfyui, open_folders

    with sentences(BAD_INPUT):
        open_folders(find_comfyui(comfyui), base_directory, user_directory, output_directory)
        from ..calibri.run_state import ENDED, read_state
        from ..nodes import runs

        folder = runs.find_run(run)
        state = read_state(folder / runs.JOURNAL)
        if state.problem:
            raise ValueError(state.problem)
        output = runs.output_folder(run)
        whole = state.state == ENDED and (output / runs.REPORT).is_file()
        found = finished_report(folder, output) if whole else state.record()
        if to is not None:
            _write(to, found, state)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    for line in _finished(found) if whole else _unfinished(state):
        typer.echo(line)
    if to is not None:
        typer.echo(f"Written to {to}.")


def finished_report(folder: Path, output: Path) -> dict[str, Any]:
    """The report of a run that ended, with its id and its files; null where there is no preset."""
    from ..nodes import runs

    numbers: dict[str, Any] = json.loads((output / runs.REPORT).read_text(encoding="utf-8"))
    preset, picture = output / runs.PRESET, output / runs.REPORT_PICTURE
    files = {
        "journal": str(folder / runs.JOURNAL),
        "report": str(output / runs.REPORT),
        "picture": str(picture) if picture.is_file() else None,
        "preset": str(preset) if preset.is_file() else None,
    }
    return {"id": folder.name, "state": "finished", "files": files, **numbers}


def _finished(found: dict[str, Any]) -> list[str]:
    from ..calibri.pilot import duration

    counts, files = found["counts"], found["files"]
    lines = [
        f"Run {found['id']}, finished: {found['verdict']}",
        *found["objections"],
        f"{counts['images']:,} images in {duration(counts['seconds'])}.",
    ]
    if files["preset"]:
        lines.append(f"The preset is {files['preset']}.")
    return [*lines, f"The report is {files['picture'] or files['report']}."]


def _unfinished(state: RunState) -> list[str]:
    from ..calibri.pilot import duration

    lines = [
        f"Run {state.id}, {state.state}: {state.generation} generations, {state.images:,} images "
        f"in {duration(state.seconds)}."
    ]
    best = state.best
    if best is not None and state.plain is not None:
        lines.append(
            f"{state.reward} on held-out prompts: {state.plain:.4g} plain, {best.reward:.4g} with "
            f"the best so far, of generation {best.generation}; gain {best.gain.mean:+.4g} (95 % "
            f"interval {best.gain.low:+.4g} to {best.gain.high:+.4g}, without allowance for the "
            "choice)."
        )
    return lines


def _write(to: Path, found: dict[str, Any], state: RunState) -> None:
    """The numbers, and a picture of the course where there is one to show."""
    from ..calibri.figure_course import draw_course
    from ..calibri.report import save_picture, save_report

    save_report(to / "report.json", found)
    if state.generations:
        rows = [{"sigma": None, **row} for row in state.generations]
        if state.plain is not None:
            zero = {"generation": 0, "mean": None, "best": None, "sigma": None}
            rows.insert(0, {**zero, "validation": state.plain})
        save_picture(to / PICTURE, draw_course(rows, len(state.generations), state.reward))
