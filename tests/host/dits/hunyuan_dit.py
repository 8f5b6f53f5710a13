"""HunyuanDiT 1.0 to 1.2."""

from __future__ import annotations

from typing import Any

import torch
from comfy.ldm.hydit.models import HunYuanDiT
from torch import Tensor, nn

from ..tiny_models import OPERATIONS, randomised
from .case import DitCase

FULL = {"device": "meta", "hidden_size": 1408, "depth": 40, "num_heads": 16, "mlp_ratio": 4.3637}


def make(**changes: Any) -> nn.Module:
    """Six blocks, of which the last two have a long skip connection."""
    config: dict[str, Any] = {
        "hidden_size": 32,
        "depth": 6,
        "num_heads": 2,
        "text_states_dim": 16,
        "text_states_dim_t5": 16,
        "text_len": 4,
        "text_len_t5": 6,
    }
    return randomised(HunYuanDiT(operations=OPERATIONS, **{**config, **changes}))


def call(model: nn.Module, rows: slice) -> Tensor:
    """Latents [rows, 4, 8, 8], four tokens of CLIP and six of T5, some of them padding."""
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype
    latents, context, t5 = (
        torch.randn(3, *shape, generator=generator)[rows].to(dtype)
        for shape in ((4, 8, 8), (4, 16), (6, 16))
    )
    timestep = torch.tensor([900.0, 500.0, 100.0])[rows]
    lengths = torch.tensor([[2], [4], [3]])[rows]
    output: Tensor = model(
        latents,
        timestep,
        context,
        text_embedding_mask=torch.arange(4) < lengths,
        encoder_hidden_states_t5=t5,
        text_embedding_mask_t5=torch.arange(6) < lengths + 1,
        image_meta_size=torch.tensor([[768.0, 512.0, 768.0, 512.0, 0.0, 0.0]]).repeat(len(t5), 1),
    )
    return output


CASES = (
    DitCase(
        name="HunyuanDiT",
        family="hunyuan-dit",
        make=make,
        call=call,
        sizes={"HunyuanDiT-v1.2": lambda: make(**FULL)},
        also=("HunyuanDiT-v1.1",),
        restarts=("skip_linear",),
    ),
    DitCase(
        name="HunyuanDiT-v1.0",
        family="hunyuan-dit",
        make=lambda: make(size_cond=True, use_style_cond=True),
        call=call,
        sizes={"HunyuanDiT-v1.0": lambda: make(**FULL, size_cond=True, use_style_cond=True)},
        restarts=("skip_linear",),
    ),
)
