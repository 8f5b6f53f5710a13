"""CogVideoX 1.0 and 1.5."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..tiny_models import OPERATIONS, randomised
from .case import SAMPLES, DitCase

FRAMES = 4
CAPTION = 12  # channels of the text


def make(**changes: Any) -> nn.Module:
    """CogVideoX: three blocks of width 48."""
    from comfy.ldm.cogvideo.model import CogVideoXTransformer3DModel  # not in v0.3.64

    config: dict[str, Any] = {
        "num_attention_heads": 3,
        "attention_head_dim": 16,
        "in_channels": 4,
        "out_channels": 4,
        "time_embed_dim": 20,
        "text_embed_dim": CAPTION,
        "num_layers": 3,
        "max_text_seq_length": 6,
        "sample_width": 6,
        "sample_height": 6,
        "sample_frames": 13,
    }
    return randomised(CogVideoXTransformer3DModel(operations=OPERATIONS, **{**config, **changes}))


def at_full_size(**changes: Any) -> nn.Module:
    from comfy.ldm.cogvideo.model import CogVideoXTransformer3DModel

    with torch.device("meta"):
        return randomised(CogVideoXTransformer3DModel(operations=OPERATIONS, **changes))


def call(model: nn.Module, rows: slice) -> Tensor:
    """Four frames, with the latents of a given image beside the noise where the model has room."""
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype
    channels = model.in_channels
    assert isinstance(channels, int)
    x = torch.randn(SAMPLES, channels, FRAMES, 6, 6, generator=generator)
    context = torch.randn(SAMPLES, 6, CAPTION, generator=generator)
    timestep = torch.tensor([900.0, 500.0, 100.0])[rows]
    ofs = torch.full((SAMPLES,), 2.0)[rows] if model.ofs_proj_dim else None
    output: Tensor = model(x[rows].to(dtype), timestep, context[rows].to(dtype), ofs=ofs)
    return output


CASES = (
    DitCase(
        name="CogVideoX",
        family="cogvideox",
        make=make,
        call=call,
        sizes={
            "CogVideoX-2B": at_full_size,
            "CogVideoX-5B": lambda: at_full_size(
                num_attention_heads=48, num_layers=42, use_rotary_positional_embeddings=True
            ),
        },
        also=("CogVideoX1.5-5B",),
    ),
    DitCase(
        name="CogVideoX 1.5 image-to-video",
        family="cogvideox",
        make=lambda: make(
            in_channels=8,
            patch_size_t=2,
            ofs_embed_dim=20,
            use_rotary_positional_embeddings=True,
        ),
        call=call,
    ),
)
