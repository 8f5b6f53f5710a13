"""AuraFlow."""

from __future__ import annotations

from typing import Any

import torch
from comfy.ldm.aura.mmdit import MMDiT
from torch import Tensor, nn

from ..tiny_models import OPERATIONS, randomised
from .case import DitCase


def make(**changes: Any) -> nn.Module:
    """Two double and two single blocks. The modulations' input is wider than the blocks."""
    config: dict[str, Any] = {
        "dim": 32,
        "n_layers": 4,
        "n_double_layers": 2,
        "n_heads": 2,
        "global_conddim": 64,
        "cond_seq_dim": 16,
        "max_seq": 64,
    }
    return randomised(MMDiT(operations=OPERATIONS, **{**config, **changes}))


def call(model: nn.Module, rows: slice) -> Tensor:
    """Latents [rows, 4, 8, 8], five tokens."""
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype
    latents, context = (
        torch.randn(3, *shape, generator=generator)[rows].to(dtype)
        for shape in ((4, 8, 8), (5, 16))
    )
    timestep = torch.tensor([0.9, 0.5, 0.1])[rows]
    output: Tensor = model(latents, timestep, context)
    return output


CASES = (
    DitCase(
        name="AuraFlow",
        family="auraflow",
        make=make,
        call=call,
        sizes={
            "AuraFlow": lambda: make(
                device="meta",
                dim=3072,
                n_layers=36,
                n_double_layers=4,
                n_heads=12,
                global_conddim=3072,
                cond_seq_dim=2048,
            )
        },
        also=("AuraFlow-v0.2", "AuraFlow-v0.3", "Pony V7"),
        inner_additions=True,
        note="a block's attention acts only through its MLP",
    ),
)
