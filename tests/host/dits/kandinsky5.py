"""Kandinsky 5, video and image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..tiny_models import OPERATIONS, randomised
from .case import SAMPLES, DitCase

LATENT = 4  # channels
FRAMES = 3
VIDEO = (2 * LATENT + 1) * 4  # channels of a 2x2 patch: noise, given frames, their mask
IMAGE = LATENT * 4


def make(**changes: Any) -> nn.Module:
    """Kandinsky 5: two text and two visual blocks of width 64."""
    from comfy.ldm.kandinsky5.model import Kandinsky5  # not in v0.3.64

    config: dict[str, Any] = {
        "in_visual_dim": LATENT,
        "out_visual_dim": LATENT,
        "in_text_dim": 12,
        "in_text_dim2": 10,
        "time_dim": 24,
        "model_dim": 64,
        "ff_dim": 128,
        "visual_embed_dim": VIDEO,
        "num_text_blocks": 2,
        "num_visual_blocks": 2,
        "axes_dims": (8, 12, 12),
    }
    return randomised(Kandinsky5(operations=OPERATIONS, **{**config, **changes}))


def at_full_size(**changes: Any) -> nn.Module:
    from comfy.ldm.kandinsky5.model import Kandinsky5

    with torch.device("meta"):
        return randomised(Kandinsky5(operations=OPERATIONS, **changes))


def inputs(model: nn.Module, rows: slice, *latent: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype
    shapes = {"x": latent, "context": (5, 12), "y": (10,)}
    given = {
        name: torch.randn(SAMPLES, *shape, generator=generator)[rows].to(dtype)
        for name, shape in shapes.items()
    }
    return {**given, "timestep": torch.tensor([900.0, 500.0, 100.0])[rows]}


def call_video(model: nn.Module, rows: slice) -> Tensor:
    output: Tensor = model(**inputs(model, rows, 2 * LATENT + 1, FRAMES, 4, 4))
    return output


def call_image_to_video(model: nn.Module, rows: slice) -> Tensor:
    """The first frame's latents and their mask are given."""
    given = inputs(model, rows, 2 * LATENT + 1, FRAMES, 4, 4)
    frame = inputs(model, rows, 2 * LATENT + 1, 1, 4, 4)["x"].flip(-1)
    output: Tensor = model(**given, time_dim_replace=frame)
    return output


def call_image(model: nn.Module, rows: slice) -> Tensor:
    output: Tensor = model(**inputs(model, rows, LATENT, 8, 8))
    return output


CASES = (
    DitCase(
        name="Kandinsky 5 video",
        family="kandinsky5",
        make=make,
        call=call_video,
        sizes={
            "Kandinsky 5.0 Video Lite": at_full_size,
            "Kandinsky 5.0 Video Pro": lambda: at_full_size(
                model_dim=4096,
                ff_dim=16384,
                time_dim=1024,
                axes_dims=(32, 48, 48),
                num_text_blocks=4,
                num_visual_blocks=60,
            ),
        },
    ),
    DitCase(
        name="Kandinsky 5 image-to-video",
        family="kandinsky5",
        make=make,
        call=call_image_to_video,
    ),
    DitCase(
        name="Kandinsky 5 image",
        family="kandinsky5",
        make=lambda: make(visual_embed_dim=IMAGE),
        call=call_image,
        sizes={
            "Kandinsky 5.0 Image Lite": lambda: at_full_size(
                model_dim=2560,
                ff_dim=10240,
                visual_embed_dim=64,
                axes_dims=(32, 48, 48),
                num_visual_blocks=50,
            )
        },
    ),
)
