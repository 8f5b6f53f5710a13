"""Qwen-Image, its Edit models with reference latents, and Layered."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel
from torch import Tensor, nn

from ..tiny_models import OPERATIONS, randomised
from .case import DitCase

FULL = {
    "device": "meta",
    "in_channels": 64,
    "out_channels": 16,
    "num_layers": 60,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 3584,
    "axes_dims_rope": (16, 56, 56),
}


def make(**changes: Any) -> nn.Module:
    """Three blocks for latents of 4 channels."""
    known = inspect.signature(QwenImageTransformer2DModel.__init__).parameters
    unknown = [name for name in changes if name not in known]
    if unknown:
        raise ImportError(f"no {', '.join(unknown)}")
    config: dict[str, Any] = {
        "in_channels": 16,
        "out_channels": 4,
        "num_layers": 3,
        "attention_head_dim": 32,
        "num_attention_heads": 2,
        "joint_attention_dim": 24,
        "axes_dims_rope": (8, 12, 12),
    }
    return randomised(QwenImageTransformer2DModel(operations=OPERATIONS, **{**config, **changes}))


def call(model: nn.Module, rows: slice, *, frames: int = 1, references: int = 0) -> Tensor:
    """Latents [rows, 4, frames, 8, 8], with references of other sizes than theirs."""
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype

    def draw(*shape: int) -> Tensor:
        return torch.randn(3, *shape, generator=generator)[rows].to(dtype)

    latents, context = draw(4, frames, 8, 8), draw(5, 24)
    timestep = torch.tensor([0.9, 0.5, 0.1])[rows]
    arguments: dict[str, Any] = {}
    if references:
        arguments["ref_latents"] = [draw(4, 1, 4 + 2 * i, 6) for i in range(references)]
    if frames > 1:
        arguments["additional_t_cond"] = torch.tensor([0, 1, 0])[rows]
    output: Tensor = model(latents, timestep, context, **arguments)
    return output


CASES = (
    DitCase(
        name="Qwen-Image",
        family="qwen-image",
        make=make,
        call=call,
        sizes={"Qwen-Image": lambda: make(**FULL)},
        also=("Qwen-Image-2512", "Qwen-Image-Lightning"),
    ),
    DitCase(
        name="Qwen-Image-Edit",
        family="qwen-image",
        make=make,
        call=lambda model, rows: call(model, rows, references=2),
        sizes={"Qwen-Image-Edit": lambda: make(**FULL)},
        also=("Qwen-Image-Edit-2509",),
    ),
    DitCase(
        name="Qwen-Image-Edit-2511",
        family="qwen-image",
        make=lambda: make(default_ref_method="index_timestep_zero"),
        call=lambda model, rows: call(model, rows, references=2),
        sizes={
            "Qwen-Image-Edit-2511": lambda: make(default_ref_method="index_timestep_zero", **FULL)
        },
        note="reference latents pass at timestep zero, under the same coefficients",
    ),
    DitCase(
        name="Qwen-Image-Layered",
        family="qwen-image",
        make=lambda: make(use_additional_t_cond=True, default_ref_method="negative_index"),
        call=lambda model, rows: call(model, rows, frames=3, references=1),
        sizes={"Qwen-Image-Layered": lambda: make(use_additional_t_cond=True, **FULL)},
    ),
)
