"""PixArt-alpha and PixArt-Sigma."""

from __future__ import annotations

from typing import Any

import torch
from comfy.ldm.pixart.pixartms import PixArtMS
from torch import Tensor, nn

from ..tiny_models import OPERATIONS, randomised
from .case import DitCase

FULL = {"device": "meta", "hidden_size": 1152, "depth": 28, "num_heads": 16}


def make(**changes: Any) -> nn.Module:
    """Three blocks. The width is a multiple of 3: three numbers of the image's size are joined."""
    config: dict[str, Any] = {
        "input_size": 8,
        "hidden_size": 48,
        "depth": 3,
        "num_heads": 2,
        "caption_channels": 16,
        "model_max_length": 5,
    }
    return randomised(PixArtMS(operations=OPERATIONS, **{**config, **changes}))


def call(model: nn.Module, rows: slice) -> Tensor:
    """Latents [rows, 4, 40, 32]: the position embedding takes no smaller ones; five tokens."""
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype
    latents, context = (
        torch.randn(3, *shape, generator=generator)[rows].to(dtype)
        for shape in ((4, 40, 32), (5, 16))
    )
    timestep = torch.tensor([900.0, 500.0, 100.0])[rows]
    sizes: dict[str, Tensor] = {}
    if hasattr(model, "ar_embedder"):
        sizes = {
            "c_size": torch.tensor([[256.0, 256.0], [512.0, 384.0], [64.0, 96.0]])[rows].to(dtype),
            "c_ar": torch.tensor([[1.0], [1.3], [0.7]])[rows].to(dtype),
        }
    output: Tensor = model(latents, timestep, context, **sizes)
    return output


CASES = (
    DitCase(
        name="PixArt-alpha",
        family="pixart",
        make=lambda: make(micro_condition=True),
        call=call,
        sizes={"PixArt-alpha": lambda: make(**FULL, micro_condition=True, model_max_length=120)},
    ),
    DitCase(
        name="PixArt-Sigma",
        family="pixart",
        make=lambda: make(micro_condition=False),
        call=call,
        sizes={"PixArt-Sigma": lambda: make(**FULL, micro_condition=False, model_max_length=300)},
    ),
)
