"""HiDream-I1, and E1, which sees the image it edits beside the noise."""

from __future__ import annotations

from typing import Any

import torch
from comfy.ldm.hidream.model import HiDreamImageTransformer2DModel
from torch import Tensor, nn

from ..tiny_models import OPERATIONS, randomised
from .case import SAMPLES, DitCase

POOLED, T5, LLAMA = 24, 20, 16  # channels of the text encoders
LLAMA_LAYERS = 3

FULL = {
    "in_channels": 16,
    "num_layers": 16,
    "num_single_layers": 32,
    "attention_head_dim": 128,
    "num_attention_heads": 20,
    "caption_channels": [4096, 4096],
    "text_emb_dim": 2048,
    "axes_dims_rope": [64, 32, 32],
    "max_resolution": [128, 128],
    "llama_layers": [*range(32), *[31] * 16],
    "device": "meta",
}


def make(**changes: Any) -> nn.Module:
    """Two double and two single blocks of width 64, with three experts."""
    config: dict[str, Any] = {
        "patch_size": 2,
        "in_channels": 4,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 32,
        "num_attention_heads": 2,
        "caption_channels": [T5, LLAMA],
        "text_emb_dim": POOLED,
        "num_routed_experts": 3,
        "num_activated_experts": 2,
        "axes_dims_rope": [16, 8, 8],
        "max_resolution": [16, 16],
        "llama_layers": [0, 1, 2, 2],
        **changes,
    }
    return randomised(HiDreamImageTransformer2DModel(operations=OPERATIONS, **config))


def call(model: nn.Module, rows: slice, *, editing: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype

    def draw(*shape: int) -> Tensor:
        return torch.randn(SAMPLES, *shape, generator=generator)[rows].to(dtype)

    latents, given = draw(4, 8, 8), draw(4, 8, 8)
    output: Tensor = model(
        latents,
        torch.tensor([900.0, 500.0, 100.0])[rows],
        y=draw(POOLED),
        context=draw(3, T5),
        encoder_hidden_states_llama3=draw(LLAMA_LAYERS, 4, LLAMA),
        image_cond=given if editing else None,
    )
    return output


CASES = (
    DitCase(
        name="HiDream-I1",
        family="hidream",
        make=make,
        call=call,
        sizes={"HiDream-I1-Full": lambda: make(**FULL)},
        also=("HiDream-I1-Dev", "HiDream-I1-Fast"),
    ),
    DitCase(
        name="HiDream-E1",
        family="hidream",
        make=make,
        call=lambda model, rows: call(model, rows, editing=True),
        sizes={"HiDream-E1": lambda: make(**FULL)},
        also=("HiDream-E1.1",),
    ),
)
