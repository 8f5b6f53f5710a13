"""`import`: a checkpoint of Calibri's official code as a preset. No model is needed."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

BAD_INPUT = 2


class Members(str, Enum):
    """official_preset.MEMBERS."""

    auto = "auto"
    ensemble = "ensemble"
    cfg = "cfg"


def import_checkpoint(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT.json", help="A cmaes_step_NNNN.json.")
    ],
    preset: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The preset to write.")],
    title: Annotated[str, typer.Option(help="The preset's; the checkpoint's name if empty.")] = "",
    base_model: Annotated[
        str, typer.Option(help="The model's name for the preset's users, like FLUX.1-dev.")
    ] = "",
    licence: Annotated[
        str, typer.Option("--license", help="Under which the checkpoint was given to you.")
    ] = "",
    members: Annotated[
        Members,
        typer.Option(
            help="What two members are. auto: CFG for SD3 and Qwen-Image, an ensemble for FLUX.1."
        ),
    ] = Members.auto,
    cfg: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=100.0,
            help="For CFG members: the scale the search began at, else the nearest to their "
            "weights.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Make a preset of a checkpoint of the official code.

    An SD3's blocks with a second attention are taken to be its first, as in SD3.5; the node Import
    Calibri Checkpoint asks the model. Exits with 0, or with 2 and a sentence where nothing was
    written.
    """
    from ..calibri.official_file import read_checkpoint
    from ..calibri.official_preset import describe_checkpoint, labelled, preset_of_checkpoint
    from ..calibri.presets import save_preset

    try:
        if preset.suffix != ".safetensors":
            raise ValueError(f"The preset {preset} must end with .safetensors: choose such a name.")
        read = read_checkpoint(checkpoint)
        made = preset_of_checkpoint(read, members.value, cfg)
        made = labelled(made, read, checkpoint.name, title, base_model, licence)
        save_preset(preset, made, overwrite)
    except (ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(BAD_INPUT) from error
    typer.echo(describe_checkpoint(read, made))
    typer.echo(f"Saved as {preset}")
