"""The latent a calibration's image starts from, for models that draw one from a prompt alone.

A video model draws a single frame, an edit model a picture without references, an image to video
model a frame without the image: ComfyUI fills such conditions with nothing. Where it cannot, or
where an answer would mean nothing, the model is refused here, before anything is sampled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import comfy.sample
import torch

from .patching import diffusion_model

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import VAE

# Classes of comfy/model_base.py, subclasses included, that only work on an input, and on what.
_WORKS_ON = {
    "HunyuanImage21Refiner": "refines a picture",
    "HunyuanVideo15_SR_Distilled": "enlarges a video",
    "PiD": "decodes a latent",
    "SeedVR2": "restores a picture or video",
    "WAN21_FlowRVS": "finds objects in a video",
}
# Those of sound and shapes whose latents have as many dimensions as a picture's.
_NO_PICTURES = ("ACEStep", "Trellis2", "TripoSplat")


def empty_latent(model: ModelPatcher, vae: VAE, width: int, height: int) -> torch.Tensor:
    """The latent [1, channels, height, width] or [1, channels, 1, height, width] of one image.

    `width` and `height` are the image's, in pixels. Raises ValueError with one sentence where the
    model draws no image from a prompt alone, or where model, VAE and size do not fit.
    """
    _check_purpose(model, vae)
    factor = int(vae.spacial_compression_encode())
    if width % factor or height % factor:
        raise ValueError(
            f"A picture of {width} x {height} does not divide into this VAE's {factor} x {factor} "
            f"cells; choose multiples of {factor}."
        )
    latent_format = model.get_model_object("latent_format")
    channels = latent_format.latent_channels
    if vae.latent_channels != channels:
        raise ValueError(
            f"The VAE makes latents of {vae.latent_channels} channels but the model takes "
            f"{channels}; load the VAE that belongs to the model."
        )
    if vae.latent_dim > latent_format.latent_dimensions:
        raise ValueError(
            "The VAE decodes videos but the model draws pictures; load the VAE that belongs to "
            "the model."
        )
    rows, columns = height // factor, width // factor
    module = diffusion_model(model)
    largest = getattr(module, "pos_embed_max_size", None)  # SD3: a learned grid of patches
    if largest is not None and getattr(module, "pos_embed", None) is not None:
        limit = largest * int(module.patch_size) * factor
        if max(width, height) > limit:
            raise ValueError(
                f"A picture of {width} x {height} is larger than this model allows; "
                f"choose at most {limit} x {limit}."
            )
    return comfy.sample.fix_empty_latent_channels(model, torch.zeros(1, channels, rows, columns))


def _check_purpose(model: ModelPatcher, vae: VAE) -> None:
    """Raise ValueError where no image can come out of a prompt."""
    name = type(model.model).__name__
    latent_format = model.get_model_object("latent_format")
    for base in (kind.__name__ for kind in type(model.model).__mro__):
        if base in _WORKS_ON:
            raise ValueError(
                f"The model ({name}) {_WORKS_ON[base]} that it is given, but Calibrate samples "
                "from prompts alone; use a model that draws pictures or videos."
            )
        if base in _NO_PICTURES or latent_format.latent_dimensions < 2:
            raise ValueError(
                f"The model ({name}) makes sound or shapes, but a reward sees pictures; use a "
                "model that draws pictures or videos."
            )
    smallest = torch.zeros(1, latent_format.latent_channels, 1, 1)
    if comfy.sample.fix_empty_latent_channels(model, smallest).is_nested:
        raise ValueError(
            f"The model ({name}) draws frames and their sound together, which Calibrate cannot "
            "sample in batches; use a model that draws pictures or videos alone."
        )
    if vae.latent_dim < 2 or vae.output_channels < 3:
        raise ValueError(
            "The VAE decodes sound or shapes, but a reward sees pictures; load the VAE that "
            "belongs to the model."
        )
