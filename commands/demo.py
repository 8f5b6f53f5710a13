"""`demo`: the demo model calibrated and evaluated without ComfyUI."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

FAILED = 1
STOPPED = 130


def demo(
    output: Annotated[
        Path, typer.Option(help="The folder for the run, the report and the preset.")
    ] = Path("calibri-demo"),
    generations: Annotated[
        int | None, typer.Option(min=1, help="Of the search (default: 30).")
    ] = None,
) -> None:
    """Calibrate the demo model on this machine's CPU without ComfyUI, then evaluate what was found.

    Minutes on two cores. Stopped with Ctrl-C it goes on when it is called again. Exits with 0, with
    1 and a sentence where something failed, or with 130 when it was stopped.
    """
    from ..calibri.journal import JournalError
    from ..demo.pictures import DemoModels
    from ..demo.standalone import (
        BEFORE_AFTER,
        PRESET,
        REPORT,
        REPORT_PICTURE,
        Effort,
        calibrate_demo,
        evaluate_demo,
    )
    from .progress import bar

    effort = Effort() if generations is None else Effort(generations=generations)
    try:
        models = DemoModels.load()
        with bar() as shown:
            shown.say("Calibrating the demo model by the command line's own sampler")
            preset, place = calibrate_demo(models, output, effort, shown.say, shown.count)
        files = None
        if preset is not None:
            with bar() as shown:
                shown.say("Evaluating plain against calibrated, over numbers of steps")
                where = place / "evaluation"
                files = evaluate_demo(models, preset, where, effort, shown.say, shown.count)
    except (JournalError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt as interrupt:
        typer.echo("Stopped. Call it again to go on.", err=True)
        raise typer.Exit(STOPPED) from interrupt
    typer.echo(f"  before and after  {place / BEFORE_AFTER}")
    typer.echo(f"  report            {place / REPORT_PICTURE}, {REPORT}")
    if files is not None:
        typer.echo(f"  evaluation        {files.page}")
        typer.echo(f"  preset            {place / PRESET}")
