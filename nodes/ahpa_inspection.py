"""What AHPA Router measures: features of pictures in a VAE, and what a model's tokens say of them.

The model is called as ComfyUI's samplers call it: with all that is on it, in inference mode and
with ComfyUI's memory management. Nothing of it is copied or changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import comfy.samplers
import numpy as np
import torch

from ..ahpa.features import FeatureReader
from ..ahpa.group_pictures import GroupPictures, read_groups
from ..ahpa.hidden import Block, HiddenReader, chosen_block, read_blocks
from ..ahpa.levels import Level, chosen_levels, read_levels
from ..ahpa.probe import Readout, check_count, probed_times, probed_tokens, read_out
from ..ahpa.recipe import Recipe
from ..ahpa.targets import whitened
from ..training.draws import generator, noise
from .ahpa_subject import token_grid
from .ahpa_targets import encode, encoder_of
from .conditioning import Conditioning
from .conditioning import encode as encode_text
from .frozen_copy import is_flow
from .patching import diffusion_model

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

    from ..ahpa.router_file import TrainedRouter
    from .training_pictures import TrainingPictures

# A router's file may be a stranger's, and say anything.
_MOST = {"block": 1000, "width": 1024}
Step = Callable[[], None]
"""Called after each picture and each noise level; may raise to cancel."""


def group_pictures(vae: VAE, pictures: torch.Tensor, step: Step) -> list[GroupPictures]:
    """What the VAE's shallow, middle and deep levels hold of pictures [P, size, size, 3].

    Raises ValueError for a VAE whose levels are not known.
    """
    encoder = encoder_of(vae)

    def encoded(picture: torch.Tensor) -> None:
        step()
        vae.encode(picture)

    one_by_one = [picture[None] for picture in pictures]
    size = (pictures.shape[1], pictures.shape[2])
    return list(read_groups(encoder, read_levels(encoder), encoded, one_by_one, size))


def readout(
    model: ModelPatcher,
    clip: CLIP,
    vae: VAE,
    data: TrainingPictures,
    trained: TrainedRouter | None,
    count: int,
    step: Step,
) -> Readout:
    """How much of the router's levels the aligned block's tokens say, at `count` noise levels.

    Without a router, as after a training of the method none, levels and block are the recipe's
    defaults. Raises ValueError in one sentence where model, VAE, router and pictures do not fit.
    """
    check_count(len(data.pictures))
    if not is_flow(model):
        raise ValueError(
            f"The model ({type(model.model).__name__}) is not trained by flow matching, which AHPA "
            "works on: connect the model that the router was trained with."
        )
    inner = diffusion_model(model)
    recipe = _recipe(trained)
    block = chosen_block(read_blocks(inner), recipe.block)
    encoder = encoder_of(vae)
    known = read_levels(encoder)
    levels = chosen_levels(known, recipe.levels) if trained is None else trained.levels
    check_levels(levels, known)
    captions = {text: encode_text(clip, text, None) for text in dict.fromkeys(data.captions)}
    latents = encode(model, vae, data.pictures, step)
    grid = token_grid(inner, latents)
    places = probed_tokens(grid[0] * grid[1], len(latents))
    reader = FeatureReader(encoder, levels, vae.encode)
    times = probed_times(count)
    found: list[list[torch.Tensor]] = []
    tokens: list[list[torch.Tensor]] = []
    for row, (picture, caption) in enumerate(zip(data.pictures, data.captions, strict=True)):
        step()
        read = reader.read(picture[None], grid)
        found.append([level[0, places].cpu() for level in read])
        asked = _Asked(model, block, grid[0] * grid[1], latents[row : row + 1], row, times, step)
        tokens.append([one[places] for one in asked.tokens(captions[caption])])
        hidden = tokens[0][0].shape[-1]
        if trained is not None and hidden != trained.hidden:
            raise ValueError(
                f"The router was trained with a model whose tokens are {trained.hidden} wide, and "
                f"this model's are {hidden}: connect the model that it was trained with."
            )
    targets = torch.cat(
        [whitened(torch.stack(one), recipe.width) for one in zip(*found, strict=True)], dim=1
    )
    cosines = [read_out(torch.stack(one), targets) for one in zip(*tokens, strict=True)]
    return Readout(block.name, levels, times, len(latents), np.stack(cosines))


def check_levels(wanted: Sequence[Level], known: Sequence[Level]) -> None:
    """Raise ValueError where a VAE has not the levels that a router weighs."""
    missing = [level.module for level in wanted if level not in known]
    if missing:
        raise ValueError(
            f"The router weighs levels that this VAE has not ({', '.join(missing)}): connect the "
            "VAE that it was trained with."
        )


class _Asked:
    """A model asked about one picture at each noise level, in one call of ComfyUI's sampling."""

    def __init__(
        self,
        model: ModelPatcher,
        block: Block,
        count: int,
        latent: torch.Tensor,
        row: int,
        times: Sequence[float],
        step: Step,
    ) -> None:
        self._model, self._times, self._step = model, times, step
        self._reader = HiddenReader(diffusion_model(model), block, count)
        self._latent = latent
        self._noise = noise(latent.shape, generator(0, "ahpa-inspection", row))
        self._found: list[torch.Tensor] = []

    def tokens(self, conditioning: Conditioning) -> list[torch.Tensor]:
        """The picture's tokens [N, H] at each time, float32 on the CPU."""
        guider = comfy.samplers.CFGGuider(self._model)
        guider.inner_set_conds({"positive": conditioning})
        sigmas = torch.tensor([*reversed(self._times), 0.0])
        empty = torch.zeros_like(self._latent)  # what the model works on is ours
        sampler = comfy.samplers.KSAMPLER(self._ask)
        guider.sample(self._noise, empty, sampler, sigmas, disable_pbar=True, seed=0)
        return self._found[::-1]

    def _ask(
        self,
        model: Any,
        x: torch.Tensor,
        sigmas: torch.Tensor,
        extra_args: dict[str, Any] | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """A sampler, as ComfyUI calls one, that looks and does not draw."""
        sampling = self._model.get_model_object("model_sampling")
        latent, eps = self._latent.to(x), self._noise.to(x)
        for sigma in sigmas[:-1]:
            self._step()
            with self._reader:
                noised = sampling.noise_scaling(sigma, eps, latent, False)
                model(noised, sigma * x.new_ones(1), **(extra_args or {}))
            try:
                found = self._reader.tokens
            except RuntimeError as error:
                raise ValueError(
                    f"The model answered without running its block {self._reader.block.name}, as "
                    "one with a cache does (EasyCache): connect the model from before it."
                ) from error
            if len(found) != 1:
                raise ValueError(
                    f"The model draws a picture from {len(found)} predictions, as an ensemble "
                    "does: connect the model from before it."
                )
            self._found.append(found[0].float().cpu())
        return x


def _recipe(trained: TrainedRouter | None) -> Recipe:
    """Block and width of the training that the router is from, as far as it says so."""
    told = None if trained is None else trained.training.get("recipe")
    held = told if isinstance(told, dict) else {}
    chosen = {
        name: held[name]
        for name, most in _MOST.items()
        if isinstance(held.get(name), int) and 0 < held[name] <= most
    }
    return Recipe(**chosen)
