"""ERNIE-Image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..tiny_models import OPERATIONS, randomised
from .case import SAMPLES, DitCase

CAPTION = 20  # channels of the text


def make() -> nn.Module:
    """Two layers of width 48."""
    from comfy.ldm.ernie.model import ErnieImageModel  # not in v0.3.64

    config: dict[str, Any] = {
        "hidden_size": 48,
        "num_attention_heads": 3,
        "num_layers": 2,
        "ffn_hidden_size": 64,
        "in_channels": 4,
        "out_channels": 4,
        "text_in_dim": CAPTION,
        "rope_axes_dim": (4, 6, 6),
    }
    return randomised(ErnieImageModel(operations=OPERATIONS, **config))


def at_full_size() -> nn.Module:
    from comfy.ldm.ernie.model import ErnieImageModel

    return randomised(ErnieImageModel(operations=OPERATIONS, device="meta"))


def call(model: nn.Module, rows: slice) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype
    latents = torch.randn(SAMPLES, 4, 4, 6, generator=generator)[rows].to(dtype)
    context = torch.randn(SAMPLES, 5, CAPTION, generator=generator)[rows].to(dtype)
    timestep = torch.tensor([900.0, 500.0, 100.0])[rows]
    output: Tensor = model(latents, timestep, context)
    return output


CASES = (
    DitCase(
        name="ERNIE-Image",
        family="ernie-image",
        make=make,
        call=call,
        sizes={"ERNIE-Image": at_full_size},
        also=("ERNIE-Image-Turbo",),
    ),
)
