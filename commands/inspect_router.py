"""`inspect-router`: what a router of AHPA weighs when, and what a VAE's levels hold of pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from .exit_codes import BAD_INPUT, sentences, terminable
from .run_options import Base, ComfyUI

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PICTURES = "Features of pictures"
_MOST = 6  # pictures side by side


def inspect_router(
    router: Annotated[
        Path,
        typer.Argument(
            metavar="ROUTER.safetensors", help="From Save AHPA Router, or of a training."
        ),
    ],
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write.")] = Path(
        "calibri-router"
    ),
    vae: Annotated[
        Path | None,
        typer.Option(
            metavar="VAE.safetensors",
            help="Also draw what its levels hold of --pictures; needs ComfyUI.",
            rich_help_panel=_PICTURES,
        ),
    ] = None,
    pictures: Annotated[
        Optional[list[Path]],  # noqa: UP045 - typer reads it at run time, on Python 3.10 too
        typer.Option(
            metavar="PICTURE",
            help="A picture; again for more, up to six.",
            rich_help_panel=_PICTURES,
        ),
    ] = None,
    size: Annotated[
        int,
        typer.Option(
            min=32, help="Pixels of the square crop, as in training.", rich_help_panel=_PICTURES
        ),
    ] = 512,
    comfyui: ComfyUI = None,
    base_directory: Base = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Leave the accelerator alone.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Draw what a router of AHPA weighs at each noise level: router.png and router.json.

    β of the groups, α of the levels and the weights' entropy against t, as in the paper's Figure 5;
    without ComfyUI. With --vae and --pictures also features.png, the levels' principal components
    as colours (Figure 4). How well a model is aligned is measured by the node AHPA Router.

    Exits with 0, or with 2 and a sentence where nothing was written.
    """
    with sentences(BAD_INPUT), terminable():
        from ..ahpa.figure_inspection import draw_router
        from ..ahpa.inspection import weighing
        from ..ahpa.router_file import load_router
        from ..calibri.report import save_picture

        shown = pictures or []
        if (vae is None) != (not shown):
            raise ValueError(
                "Features are those of a VAE in pictures: give both --vae and --pictures, or none "
                "of them."
            )
        if len(shown) > _MOST:
            raise ValueError(f"There are {len(shown)} pictures: give {_MOST} at most.")
        trained = load_router(router)
        drawn = {"router.png": draw_router(trained)}
        found = weighing(trained)
        numbers = found.record()
        names = ["router.json", "router.png", *(["features.png"] if shown else [])]
        taken = [name for name in names if (output / name).exists()]
        if taken and not overwrite:
            raise ValueError(
                f"{output} holds {' and '.join(taken)} already: name another folder with --output, "
                "or add --overwrite."
            )
        if vae is not None:
            from ..nodes import headless

            headless.start_comfyui(headless.find_comfyui(comfyui), cpu or None, base_directory)
            drawn["features.png"], numbers["features"] = _features(vae, shown, size)
        for name, picture in drawn.items():
            save_picture(output / name, picture)
        data = json.dumps(numbers, indent=1, ensure_ascii=False)
        _write(output / "router.json", data)
        typer.echo(f"{found.words()}\nThe pictures and numbers are in {output}.")


def _features(
    vae: Path, pictures: list[Path], size: int
) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Drawn and as JSON."""
    import torch

    from ..ahpa.figure_inspection import draw_features
    from ..ahpa.pictures import crop, opened
    from ..nodes.ahpa_inspection import group_pictures
    from ..nodes.headless import load_vae

    cropped = torch.stack([crop(opened(path), size) for path in pictures])
    with torch.inference_mode():
        groups = group_pictures(load_vae(vae), cropped, lambda: None)
    return draw_features(cropped.numpy(), groups), {g.group: g.record() for g in groups}


def _write(path: Path, text: str) -> None:
    from ..calibri.atomic_file import save_atomically

    save_atomically(path, text.encode(), "report")
