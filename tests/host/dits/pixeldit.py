"""PixelDiT, and PiD, which decodes latents with its blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..tiny_models import OPERATIONS, randomised
from .case import DitCase

TINY: dict[str, Any] = {
    "num_groups": 2,
    "hidden_size": 32,
    "pixel_hidden_size": 8,
    "pixel_attn_hidden_size": 32,
    "pixel_num_groups": 2,
    "patch_depth": 2,
    "pixel_depth": 2,
    "patch_size": 4,
    "txt_embed_dim": 16,
    "txt_max_length": 6,
}


def make_pixeldit(**changes: Any) -> nn.Module:
    """Two blocks over patches of 4x4 pixels, two over pixels."""
    from comfy.ldm.pixeldit.model import PixDiT_T2I

    return randomised(PixDiT_T2I(operations=OPERATIONS, **changes))


def make_pid(**changes: Any) -> nn.Module:
    from comfy.ldm.pixeldit.pid import PidNet

    return randomised(PidNet(operations=OPERATIONS, **changes))


def call(model: nn.Module, rows: slice) -> Tensor:
    """Pixels [rows, 3, 12, 12]: nine patches a sample, an odd number for MLPs in two parts."""
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype

    def draw(*shape: int) -> Tensor:
        return torch.randn(3, *shape, generator=generator)[rows].to(dtype)

    pixels, context = draw(3, 12, 12), draw(5, 16)
    timestep = torch.tensor([900.0, 500.0, 100.0])[rows]
    arguments: dict[str, Tensor] = {}
    if hasattr(model, "lq_proj"):
        arguments["lq_latent"] = draw(4, 3, 3)
        arguments["degrade_sigma"] = torch.tensor([0.0, 0.3, 0.6])[rows]
    output: Tensor = model(pixels, timestep, context, **arguments)
    return output


TINY_PID: dict[str, Any] = {
    **TINY,
    "lq_latent_channels": 4,
    "lq_hidden_dim": 8,
    "lq_num_res_blocks": 1,
    "sr_scale": 4,
    "latent_spatial_down_factor": 1,
    "rope_ref_h": 8,
    "rope_ref_w": 8,
}

CASES = (
    DitCase(
        name="PixelDiT",
        family="pixeldit",
        make=lambda: make_pixeldit(**TINY),
        call=call,
        sizes={"PixelDiT-T2I": lambda: make_pixeldit(device="meta")},
    ),
    DitCase(
        name="PiD",
        family="pid",
        make=lambda: make_pid(**TINY_PID),
        call=call,
        sizes={"PiD": lambda: make_pid(device="meta")},
    ),
    DitCase(
        name="PiD 1.5",
        family="pid",
        make=lambda: make_pid(**TINY_PID, pit_lq_inject=True, lq_gate_per_token=True),
        call=call,
        sizes={"PiD 1.5": lambda: make_pid(device="meta", pit_lq_inject=True)},
    ),
)
