"""`export`: a preset as a checkpoint that Calibri's official code reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BAD_INPUT = 2


def export_checkpoint(
    preset: Annotated[Path, typer.Argument(metavar="PRESET.safetensors", help="A preset.")],
    checkpoint: Annotated[
        Path, typer.Argument(metavar="OUT.json", help="The checkpoint to write.")
    ],
    drop_ignored: Annotated[
        bool,
        typer.Option(
            "--drop-ignored",
            help="Leave out what the official code would ignore, the MLP coefficients of "
            "Qwen-Image; its pictures will differ.",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Make a checkpoint for the official code of a preset for FLUX.1, SD3 or Qwen-Image.

    Exits with 0, or with 2 and a sentence where nothing was written.
    """
    from ..calibri.official_file import write_checkpoint
    from ..calibri.official_preset import checkpoint_of_preset
    from ..calibri.presets import load_preset

    try:
        if checkpoint.suffix != ".json":
            raise ValueError(
                f"The checkpoint {checkpoint} must end with .json: choose such a name."
            )
        made = checkpoint_of_preset(load_preset(preset), drop_ignored)
        write_checkpoint(checkpoint, made, overwrite)
    except (ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(BAD_INPUT) from error
    typer.echo(f"Saved as {checkpoint}")
