"""What a VAE makes of the pictures of a training: latents for the model, features to align to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management
import folder_paths
import torch
from torch import nn

from ..ahpa.feature_cache import CacheKey
from ..ahpa.features import FeatureReader
from ..ahpa.levels import Level, UnknownEncoderError, chosen_levels, read_levels
from ..ahpa.methods import DEEPEST, LATENTS, LEVELS, VISION, method_of, used_levels
from ..ahpa.targets import cached_levels, encoder_mark, latent_features, vision_features
from . import identity
from .latents import empty_latent

if TYPE_CHECKING:
    from comfy.clip_vision import ClipVisionModel
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import VAE

    from ..ahpa.recipe import Recipe
    from ..ahpa.training import Features

_ENCODERS = ("encoder", "taesd_encoder")


def ahpa_folder() -> Path:
    """Where features and the states of trainings are."""
    return Path(folder_paths.get_user_directory()) / "calibri" / "ahpa"


def encoder_of(vae: VAE) -> nn.Module:
    """The encoder inside a VAE. Raises UnknownEncoderError where there is none to be seen."""
    model = getattr(vae, "first_stage_model", None)
    for name in _ENCODERS:
        encoder = getattr(model, name, None)
        if isinstance(encoder, nn.Module):
            return encoder
    raise UnknownEncoderError(
        f"The VAE is a {type(model).__name__} without an encoder that AHPA knows: use a VAE of "
        "the kind of SD3, FLUX, Wan, Qwen-Image or TAESD, or the method none."
    )


def encode(
    model: ModelPatcher, vae: VAE, pictures: torch.Tensor, look_up: Callable[[], None]
) -> torch.Tensor:
    """Latents [P, C, H, W] or [P, C, 1, H, W] as the model sees them, float32 on the CPU.

    Raises ValueError where VAE, model and size do not fit each other.
    """
    expected = empty_latent(model, vae, pictures.shape[2], pictures.shape[1])
    rows = []
    for picture in pictures:
        look_up()
        latent = vae.encode(picture[None]).float().cpu()
        if latent.ndim < expected.ndim:
            latent = latent[:, :, None]
        rows.append(model.model.process_latent_in(latent).clone())
    latents = torch.cat(rows)
    if latents.shape[1:] != expected.shape[1:]:
        raise ValueError(
            f"The VAE makes latents of {tuple(latents.shape[1:])} and the model takes "
            f"{tuple(expected.shape[1:])}: load the VAE that belongs to the model."
        )
    return latents


def read_targets(
    vae: VAE,
    vision: ClipVisionModel | None,
    pictures: torch.Tensor,
    latents: torch.Tensor,
    grid: tuple[int, int],
    recipe: Recipe,
    watch: Callable[[int, int], None],
) -> tuple[tuple[Level, ...], Features | None]:
    """The levels that the recipe's method reads, and the features of all pictures.

    Features of a VAE's levels are kept in user/calibri/ahpa/features, by what they were made of.
    Raises ValueError in one sentence for a VAE or image encoder that does not serve.
    """
    target = method_of(recipe.method).target
    if target == LATENTS:
        return (), latent_features(latents, grid, recipe.width).__getitem__
    if target == VISION:
        if vision is None:
            raise ValueError(
                "The method repa aligns to an image encoder: connect clip_vision, or choose "
                "another method."
            )
        return (), _seen(vision, pictures, grid, recipe.width, watch).__getitem__
    if target not in (LEVELS, DEEPEST):
        return (), None
    encoder = encoder_of(vae)
    levels = used_levels(recipe.method, chosen_levels(read_levels(encoder), recipe.levels))
    key = CacheKey(
        vae=encoder_mark(encoder, levels),
        pictures=tuple(identity.of_tensor(picture) for picture in pictures),
        levels=tuple(level.module for level in levels),
        grid=grid,
        width=recipe.width,
    )

    def chosen(numbers: Sequence[int]) -> torch.Tensor:
        watch(0, 0)
        return pictures[list(numbers)]

    # One picture at a time: a VAE that splits a batch would run its encoder twice.
    cache = cached_levels(
        ahpa_folder() / "features" / key.fingerprint,
        key,
        FeatureReader(encoder, levels, vae.encode),
        chosen,
        progress=watch,
    )
    return levels, cache.__getitem__


def _seen(
    vision: Any,
    pictures: torch.Tensor,
    grid: tuple[int, int],
    width: int,
    watch: Callable[[int, int], None],
) -> torch.Tensor:
    tokens = []
    for number, picture in enumerate(pictures):
        comfy.model_management.throw_exception_if_processing_interrupted()
        output = vision.encode_image(picture[None])
        tokens.append(output["penultimate_hidden_states"].float().cpu().clone())
        watch(number + 1, len(pictures))
    return vision_features(torch.cat(tokens), grid, width)
