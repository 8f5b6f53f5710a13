"""`status` and `stop`: what runs there are, and an end for one that another process works on."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from .exit_codes import BAD_INPUT, FAILED, sentences
from .run_options import Base, ComfyUI, Json, Output, User

if TYPE_CHECKING:
    from pathlib import Path

NOT_STOPPED = FAILED


def status(
    run: Annotated[
        Optional[str],  # noqa: UP045 - typer reads it at run time
        typer.Argument(metavar="[RUN]", help="One run alone."),
    ] = None,
    comfyui: ComfyUI = None,
    base_directory: Base = None,
    user_directory: User = None,
    output_directory: Output = None,
    as_json: Json = False,
) -> None:
    """List the runs of this ComfyUI: of the command line, of Calibrate, and of the background.

    A run is running where a process, on this machine or on another that shares the disk, works on
    it. Exits with 0, or with 2 where there is no such run.
    """
    from ..nodes.headless import find_comfyui, open_folders

    with sentences(BAD_INPUT):
        open_folders(find_comfyui(comfyui), base_directory, user_directory, output_directory)
        from ..calibri.run_state import read_state
        from ..nodes import runs

        names = runs.all_runs() if run is None else [runs.find_run(run).name]
        states = [read_state(runs.runs_folder() / name / runs.JOURNAL) for name in names]
    rows = [state.summary() for state in states]
    if as_json:
        typer.echo(json.dumps(rows if run is None else rows[0], ensure_ascii=False))
        return
    if not rows:
        typer.echo(f"There are no runs in {runs.runs_folder()}.")
        return
    _show(rows)


def stop(
    run: Annotated[str, typer.Argument(metavar="RUN", help="As `status` lists them.")],
    finish: Annotated[
        bool,
        typer.Option(
            "--finish", help="End the search with its generation, then compare and report."
        ),
    ] = False,
    wait: Annotated[
        float, typer.Option(min=0.0, help="Seconds to wait until it has stopped.")
    ] = 0.0,
    comfyui: ComfyUI = None,
    base_directory: Base = None,
    user_directory: User = None,
    output_directory: Output = None,
    as_json: Json = False,
) -> None:
    """Ask whoever works on a run, a command or a ComfyUI, to stop after the batch that it draws.

    Everything is kept; `resume`, or the page, goes on with it. Exits with 0 once it is asked, or
    with --wait once it has stopped; with 1 where that took longer, with 2 where nobody works on it.
    """
    from ..nodes.headless import find_comfyui, open_folders

    with sentences(BAD_INPUT):
        open_folders(find_comfyui(comfyui), base_directory, user_directory, output_directory)
        from ..calibri import stop_request
        from ..calibri.journal_file import is_locked
        from ..nodes import runs

        folder = runs.find_run(run)
        if not is_locked(folder / runs.JOURNAL):
            raise ValueError(f"Nobody works on the run {run!r}: there is nothing to stop.")
        wish = stop_request.FINISH if finish else stop_request.STOP
        stop_request.ask(folder, wish)
    stopped = bool(wait) and _ends(folder / runs.JOURNAL, wait)
    if as_json:
        typer.echo(json.dumps({"id": run, "asked": wish, "stopped": stopped}))
    elif stopped:
        typer.echo(f"The run {run} has stopped.")
    elif not wait:
        typer.echo(f"The run {run} was asked to {wish}.")
    if wait and not stopped:
        typer.echo(f"The run {run} still draws after {wait:g} s; it was asked.", err=True)
        raise typer.Exit(NOT_STOPPED)


def _ends(journal: Path, seconds: float) -> bool:
    """Whether its process lets the journal go within so many seconds."""
    from ..calibri.journal_file import is_locked

    until = time.monotonic() + seconds
    while is_locked(journal):
        if time.monotonic() >= until:
            return False
        time.sleep(0.2)
    return True


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("run", "state", "generation", "images", "hours", "plain", "best so far", "gain"):
        table.add_column(column, overflow="fold")
    for row in rows:
        best = row["best"]
        gain = "" if best is None else f"{best['gain']['mean']:+.3g}"
        table.add_row(
            row["id"],
            row["state"],
            str(row["generation"]),
            f"{row['images']:,}",
            f"{row['seconds'] / 3600:.2f}",
            "" if row["plain"] is None else f"{row['plain']:.4g}",
            "" if best is None else f"{best['reward']:.4g}",
            gain,
        )
    Console().print(table)
