"""`train` from its options to a run that can begin: what fits what is settled before anything is
made, then latents and features are.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..ahpa.autoencoder import VAE, Scaling
from ..ahpa.extraction import CachedLatents, cached_features, cached_latents
from ..ahpa.full_run import FullRun, Saving, check_folder
from ..ahpa.full_subject import Conditions, ModelSubject, token_grid
from ..ahpa.methods import VISION, method_of
from ..ahpa.picture_folder import Pictures
from ..ahpa.recipe import Recipe
from ..ahpa.router_file import load_router
from ..ahpa.sit import SiT
from ..ahpa.targets import encoder_mark
from ..demo.autoencoder import FLUX_SCALE, FLUX_SHIFT, LATENT_CHANNELS
from ..demo.scenes import IMAGE_SIZE
from ..training.processes import Processes
from .train_model import DEMO, SIT, ModelFile, Sizes, make_model, names_of, read_model
from .train_world import (
    Sources,
    mark_of,
    read_conditions,
    read_pictures,
    read_vae,
    read_vision,
    unknown_words,
)

_SIDE = 256  # pixels of a crop, as SiT has them
_NAMED = 5  # unknown words that are told


@dataclass(frozen=True)
class Wanted:
    """What the command line says, beside the recipe."""

    sources: Sources
    shape: str | None
    sizes: Sizes
    model: Path | None
    size: int | None
    scale: float | None
    shift: float | None
    router: Path | None
    folder: Path
    cache: Path | None
    encode_batch: int


@dataclass(frozen=True)
class Told:
    """Whom the set-up speaks to."""

    say: Callable[[str], None]
    count: Callable[[int, int], None]  # of pictures
    look_up: Callable[[], None]  # called in each step


@dataclass(frozen=True)
class Prepared:
    """A run that can begin, and what draws its previews."""

    run: FullRun
    vae: VAE
    scaling: Scaling


def prepare(
    wanted: Wanted, recipe: Recipe, processes: Processes, device: torch.device, told: Told
) -> Prepared:
    """Raises ValueError and OSError in one sentence for what does not fit."""
    sources = wanted.sources
    check_folder(wanted.folder)
    file = None if wanted.model is None else read_model(wanted.model, wanted.sizes.heads)
    vae = read_vae(sources)
    pictures = read_pictures(sources, _size(wanted, file, vae))
    known = None if file is None else file.classes
    conditions, text = read_conditions(sources, pictures, known, device)
    _warn(sources, pictures, told)
    side, classes = pictures.size // vae.factor, len(pictures.classes)
    shape = wanted.shape or (None if file else DEMO if sources.demo else f"{SIT}-b/2")
    model = make_model(
        shape, wanted.sizes, file, vae.channels, side, conditions, classes, recipe.seed
    )
    grid = token_grid(model, (len(pictures.marks), vae.channels, side, side))
    vision = read_vision(sources, device) if _sees(recipe) else None
    router = None if wanted.router is None else load_router(wanted.router).router
    cache = wanted.cache or wanted.folder / "cache"
    vae.module.to(device)
    batch = wanted.encode_batch

    def make_latents() -> CachedLatents:
        return cached_latents(cache, vae, pictures, batch, told.count)

    def make_features() -> Any:
        return cached_features(cache, recipe, vae, vision, pictures, grid, batch, told.count)

    # The first process makes them; then all open what is there.
    told.say(f"Latents of {len(pictures.marks)} pictures, in {cache}.")
    processes.first(lambda: _kept(cache, make_latents))
    latents = make_latents().scaled(_scaling(wanted, file, vae, model))
    told.say(f"Features for the method {recipe.method}.")
    processes.first(lambda: _kept(cache, make_features))
    levels, features = make_features()
    vae.module.to("cpu")  # the model needs the room
    about = {
        "model": "new" if file is None else encoder_mark(model, ()),
        "shape": asdict(model.config),
        "pictures": mark_of(pictures.marks),
        "told": mark_of([*pictures.captions, *map(str, pictures.labels)]),
        "text": text,
        "vae": encoder_mark(vae.encoder, ()),
        "scaling": asdict(latents.scaling),
        "vision": None if vision is None else vision.mark,
        "router": None if router is None else encoder_mark(router, ()),
    }
    subject = ModelSubject(model, latents, _understood(model, conditions), device, told.look_up)
    saving = Saving(
        lambda weights: names_of(model, weights),
        {
            "schema": 1,
            "shape": asdict(model.config),
            "latents": asdict(latents.scaling),
            "classes": list(pictures.classes),
            "pictures": len(pictures.marks),
        },
    )
    run = FullRun(
        subject, recipe, levels, features, router, wanted.folder, about, saving, processes
    )
    return Prepared(run, vae, latents.scaling)


def _size(wanted: Wanted, file: ModelFile | None, vae: VAE) -> int:
    """Pixels of a crop's side: what is asked for, or what the model takes."""
    if wanted.size is not None:
        return wanted.size
    if file is not None and file.side is not None:
        return file.side * vae.factor
    return IMAGE_SIZE if wanted.sources.demo else _SIDE


def _scaling(wanted: Wanted, file: ModelFile | None, vae: VAE, model: nn.Module) -> Scaling | None:
    """What is said, by hand, the model, the VAE or ComfyUI; None where it is to be measured."""
    if wanted.scale is not None:
        return Scaling(wanted.scale, wanted.shift or 0.0)
    if file is not None and file.scaling is not None:
        return file.scaling
    if vae.scaling is not None:
        return vae.scaling
    # ComfyUI takes the demo's shape for a FLUX and scales the latents as FLUX's.
    flux = not isinstance(model, SiT) and vae.channels == LATENT_CHANNELS
    return Scaling(FLUX_SCALE, FLUX_SHIFT) if flux else None


def _understood(model: nn.Module, conditions: Conditions) -> Conditions:
    return conditions.pooled if isinstance(model, SiT) else conditions


def _sees(recipe: Recipe) -> bool:
    return method_of(recipe.method).target == VISION


def _warn(sources: Sources, pictures: Pictures, told: Told) -> None:
    """Of words that the demo's text encoder takes for one and the same."""
    if not sources.demo or sources.text_encoder is not None or not pictures.captions:
        return
    words = unknown_words(pictures.captions)
    if words:
        shown = ", ".join(words[:_NAMED]) + (" …" if len(words) > _NAMED else "")
        told.say(f"The demo's text encoder does not know {len(words)} words: {shown}")


def _kept(cache: Path, make: Callable[[], object]) -> None:
    """Make it; a full disk is said in a sentence."""
    try:
        make()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(
            f"Latents and features could not be kept in {cache} ({error.strerror}): free some "
            "space, or name another place with --cache; what is there is not made again."
        ) from error
