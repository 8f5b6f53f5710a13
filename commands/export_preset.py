"""`export`: a preset as a file for others, Calibri's official code or any loader of LoRAs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..calibri.presets import Preset

BAD_INPUT = 2


def export_preset(
    preset: Annotated[Path, typer.Argument(metavar="PRESET.safetensors", help="A preset.")],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="The file to write: OUT.json for Calibri's official code, OUT.safetensors for a "
            "weight patch.",
        ),
    ],
    base: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL.safetensors",
            help="For a weight patch: the model that it is for, in 16 or 32 bits as ComfyUI loads "
            "it.",
        ),
    ] = None,
    drop_ignored: Annotated[
        bool,
        typer.Option(
            "--drop-ignored",
            help="For the official code: leave out what it would ignore, the MLP coefficients of "
            "Qwen-Image; its pictures will differ.",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Make a file of a preset that works without this pack; OUT's ending says which.

    OUT.json is a checkpoint of Calibri's official code (FLUX.1, SD3 and Qwen-Image).

    OUT.safetensors is an ordinary LoRA file, which ComfyUI's Load LoRA applies to MODEL. It belongs
    to MODEL alone. Making it needs neither ComfyUI nor a GPU. Ensembles have none, nor have
    families whose branches do not end in weights.

    Exits with 0, or with 2 and a sentence where nothing was written.
    """
    from ..calibri.presets import load_preset

    try:
        kind = out.suffix.lower()
        if kind not in (".json", ".safetensors"):
            raise ValueError(
                f"{out} must end with .json, for Calibri's official code, or with .safetensors, "
                "for a weight patch: choose such a name."
            )
        if kind == ".json" and base is not None:
            raise ValueError(f"--base is for weight patches, and {out} is none: leave it out.")
        if kind == ".safetensors" and drop_ignored:
            raise ValueError(f"--drop-ignored is for .json, and {out} is none: leave it out.")
        for name, given in (("PRESET", preset), ("--base", base)):
            if given is not None and out.exists() and given.exists() and out.samefile(given):
                raise ValueError(f"{out} is the file of {name} itself: choose another name.")
        held = load_preset(preset)
        if kind == ".json":
            _write_checkpoint(held, out, drop_ignored, overwrite)
        else:
            _write_patch(held, base, out, overwrite)
    except (ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(BAD_INPUT) from error
    typer.echo(f"Saved as {out}")


def _write_checkpoint(preset: Preset, out: Path, drop_ignored: bool, overwrite: bool) -> None:
    from ..calibri.official_file import write_checkpoint
    from ..calibri.official_preset import checkpoint_of_preset

    write_checkpoint(out, checkpoint_of_preset(preset, drop_ignored), overwrite)


def _write_patch(preset: Preset, base: Path | None, out: Path, overwrite: bool) -> None:
    from ..calibri.bake import preset_patch, save_patch
    from ..calibri.model_file import open_model_file

    if base is None:
        raise ValueError(
            f"{out} would be a weight patch, which is made for one base model: name its file with "
            "--base MODEL.safetensors."
        )
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists already: choose another name, or add --overwrite.")
    with open_model_file(base, preset.family) as model:
        patch = preset_patch(preset, model.model, model.backbone, model.read)
    save_patch(out, patch, preset)
