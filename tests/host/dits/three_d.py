"""Hunyuan3D 2, 2mini and 2.1, TripoSplat."""

from __future__ import annotations

from typing import Any

import torch
from comfy.ldm.hunyuan3d.model import Hunyuan3Dv2
from comfy.ldm.hunyuan3dv2_1.hunyuandit import HunYuanDiTPlain
from torch import Tensor, nn

from ..tiny_models import OPERATIONS, randomised
from .case import DitCase


def make_hunyuan3d_2(**changes: Any) -> nn.Module:
    """Two double and two single blocks."""
    config: dict[str, Any] = {
        "in_channels": 4,
        "context_in_dim": 16,
        "hidden_size": 32,
        "num_heads": 2,
        "depth": 2,
        "depth_single_blocks": 2,
    }
    return randomised(Hunyuan3Dv2(operations=OPERATIONS, **{**config, **changes}))


def make_hunyuan3d_2_1(**changes: Any) -> nn.Module:
    """Five blocks: two with a long skip connection, the last two with experts."""
    config: dict[str, Any] = {
        "in_channels": 4,
        "hidden_size": 32,
        "context_dim": 16,
        "depth": 5,
        "num_heads": 2,
        "num_moe_layers": 2,
        "num_experts": 3,
        "guidance_cond_proj_dim": None,
    }
    return randomised(HunYuanDiTPlain(operations=OPERATIONS, **{**config, **changes}))


def make_triposplat(**changes: Any) -> nn.Module:
    from comfy.ldm.triposplat.model import LatentSeqMMFlowModel

    return randomised(LatentSeqMMFlowModel(operations=OPERATIONS, **changes))


def _draw(model: nn.Module, rows: slice, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype
    return [torch.randn(3, *shape, generator=generator)[rows].to(dtype) for shape in shapes]


def call(model: nn.Module, rows: slice) -> Tensor:
    """Latents [rows, 4, 9], five tokens of the picture."""
    latents, context = _draw(model, rows, (4, 9), (5, 16))
    output: Tensor = model(latents, torch.tensor([0.9, 0.5, 0.1])[rows], context)
    return output


def call_triposplat(model: nn.Module, rows: slice) -> Tensor:
    """Nine latent tokens, five of the picture, two by two of its latent, and the camera."""
    latents, camera, context, picture = _draw(model, rows, (9, 4), (1, 5), (5, 16), (8, 2, 2))
    timestep = torch.tensor([0.9, 0.5, 0.1])[rows]
    shape, view = model([latents, camera], timestep, context, ref_latents=[picture])
    return torch.cat((shape.flatten(1), view.flatten(1)), dim=1)


CASES = (
    DitCase(
        name="Hunyuan3D 2",
        family="hunyuan3d-2",
        make=make_hunyuan3d_2,
        call=call,
        sizes={
            "Hunyuan3D 2.0": lambda: make_hunyuan3d_2(
                device="meta",
                in_channels=64,
                context_in_dim=1536,
                hidden_size=1024,
                num_heads=16,
                depth=16,
                depth_single_blocks=32,
            ),
            "Hunyuan3D 2mini": lambda: make_hunyuan3d_2(
                device="meta",
                in_channels=64,
                context_in_dim=1536,
                hidden_size=1024,
                num_heads=16,
                depth=8,
                depth_single_blocks=16,
            ),
        },
        also=("Hunyuan3D 2mv",),
    ),
    DitCase(
        name="Hunyuan3D 2.1",
        family="hunyuan3d-2.1",
        make=make_hunyuan3d_2_1,
        call=call,
        sizes={
            "Hunyuan3D 2.1": lambda: make_hunyuan3d_2_1(
                device="meta",
                in_channels=64,
                hidden_size=2048,
                context_dim=1024,
                depth=21,
                num_heads=16,
                num_moe_layers=6,
                num_experts=8,
            )
        },
        one_gain_for_all="ComfyUI's class swaps the halves of a batch",
        restarts=("skip_norm",),
    ),
    DitCase(
        name="TripoSplat",
        family="triposplat",
        make=lambda: make_triposplat(
            q_token_length=9,
            in_channels=4,
            model_channels=48,
            cond_channels=16,
            out_channels=4,
            num_blocks=2,
            num_refiner_blocks=1,
            num_head_channels=24,
            cond2_channels=8,
        ),
        call=call_triposplat,
        sizes={"TripoSplat": lambda: make_triposplat(device="meta")},
    ),
)
