"""Lumina 2 and what is built on it: NewBie, Z-Image, its Omni and its pixel space models."""

from __future__ import annotations

import inspect
from typing import Any

import comfy.ops
import torch
from comfy.ldm.lumina.model import NextDiT
from torch import Tensor, nn

from ..tiny_models import OPERATIONS, randomised
from .case import SAMPLES, DitCase

CAPTION, POOLED, VISION = 24, 12, 20  # channels of the text, its pooled vector, a vision encoder

Z_IMAGE = {
    "dim": 256,  # its gates are made of 256 channels
    "n_heads": 8,
    "n_kv_heads": 8,
    "axes_dims": [8, 12, 12],
    "ffn_dim_multiplier": 8 / 3,
    "rope_theta": 256.0,
    "z_image_modulation": True,
    "time_scale": 1000.0,
    "pad_tokens_multiple": 8,
}
LUMINA_FULL = {
    "in_channels": 16,
    "dim": 2304,
    "n_layers": 26,
    "n_heads": 24,
    "n_kv_heads": 8,
    "multiple_of": 256,
    "cap_feat_dim": 2304,
    "axes_dims": [32, 32, 32],
    "device": "meta",
}
Z_IMAGE_FULL = {
    **LUMINA_FULL,
    **Z_IMAGE,
    "dim": 3840,
    "n_layers": 30,
    "n_heads": 30,
    "n_kv_heads": 30,
    "cap_feat_dim": 2560,
    "axes_dims": [32, 48, 48],
}


def make(dit: Any = NextDiT, operations: Any = OPERATIONS, **changes: Any) -> nn.Module:
    """Two blocks in each refiner and two layers."""
    config: dict[str, Any] = {
        "in_channels": 4,
        "dim": 48,
        "n_layers": 2,
        "n_heads": 3,
        "n_kv_heads": 1,
        "multiple_of": 16,
        "qk_norm": True,
        "cap_feat_dim": CAPTION,
        "axes_dims": [4, 6, 6],
        **changes,
    }
    known = inspect.signature(NextDiT.__init__).parameters
    unknown = [name for name in changes if name not in known and dit is NextDiT]
    if unknown:
        raise ImportError(f"no {', '.join(unknown)}")
    return randomised(dit(operations=operations, **config))


def make_pixel_space(**changes: Any) -> nn.Module:
    from comfy.ldm.lumina.model import NextDiTPixelSpace  # not in v0.3.64

    config: dict[str, Any] = {
        **Z_IMAGE,
        "in_channels": 3,
        "patch_size": 4,
        "decoder_hidden_size": 16,
        "decoder_num_res_blocks": 2,
        "decoder_max_freqs": 2,
        "use_x0": True,
        **changes,
    }
    # The patches' embedder computes in float32 whatever the weights' type is: these layers cast.
    return make(NextDiTPixelSpace, comfy.ops.manual_cast, **config)


def call(
    model: nn.Module, rows: slice, *, side: int = 8, pooled: bool = False, references: bool = False
) -> Tensor:
    """Latents (or pixels) of side x side with a caption of five tokens; with the caption's pooled
    vector, or with two references, only one of which a vision encoder has seen.
    """
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype

    def draw(*shape: int) -> Tensor:
        return torch.randn(SAMPLES, *shape, generator=generator)[rows].to(dtype)

    channels = model.in_channels
    assert isinstance(channels, int)
    latents, context = draw(channels, side, side), draw(5, CAPTION)
    timestep = torch.tensor([0.9, 0.5, 0.1])[rows]
    arguments: dict[str, Any] = {"num_tokens": 5}
    if pooled:
        arguments["clip_text_pooled"] = draw(POOLED)
    if references:
        arguments["ref_latents"] = [draw(channels, 4, 6), draw(channels, 6, 4)]
        arguments["ref_contexts"] = [draw(3, CAPTION), draw(4, CAPTION)]
        arguments["siglip_feats"] = [draw(2, 3, VISION)]
    output: Tensor = model(latents, timestep, context, **arguments)
    return output


CASES = (
    DitCase(
        name="Lumina-Image-2.0",
        family="lumina2",
        make=make,
        call=call,
        sizes={"Lumina-Image-2.0": lambda: make(**LUMINA_FULL)},
        also=("NetaYume Lumina",),
    ),
    DitCase(
        name="NewBie",
        family="lumina2",
        make=lambda: make(clip_text_dim=POOLED),
        call=lambda model, rows: call(model, rows, pooled=True),
    ),
    DitCase(
        name="Z-Image",
        family="z-image",
        make=lambda: make(**Z_IMAGE),
        call=call,
        sizes={"Z-Image": lambda: make(**Z_IMAGE_FULL)},
        also=("Z-Image-Turbo",),
    ),
    DitCase(
        name="Z-Image with references",
        family="z-image",
        make=lambda: make(**Z_IMAGE),
        call=lambda model, rows: call(model, rows, references=True),
        note="references pass at timestep zero, under the same coefficients",
    ),
    DitCase(
        name="Z-Image Omni",
        family="z-image",
        make=lambda: make(siglip_feat_dim=VISION, **Z_IMAGE),
        call=lambda model, rows: call(model, rows, references=True),
        note="the coefficients of its SigLIP refiner act where there are references",
    ),
    DitCase(
        name="Z-Image pixel space",
        family="z-image",
        make=make_pixel_space,
        call=lambda model, rows: call(model, rows, side=16),
        note="the network that paints its patches is no DiT block and has no coefficients",
    ),
)
