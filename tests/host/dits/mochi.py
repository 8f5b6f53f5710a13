"""Mochi 1."""

from __future__ import annotations

from typing import Any

import torch
from comfy.ldm.genmo.joint_model.asymm_models_joint import AsymmDiTJoint
from torch import Tensor, nn

from ..tiny_models import OPERATIONS, randomised
from .case import SAMPLES, DitCase

TOKENS = 6  # of the text
PUBLISHED: dict[str, Any] = {
    "depth": 48,
    "num_heads": 24,
    "hidden_size_x": 3072,
    "hidden_size_y": 1536,
    "mlp_ratio_x": 4.0,
    "mlp_ratio_y": 4.0,
    "learn_sigma": False,
    "in_channels": 12,
    "qk_norm": True,
    "qkv_bias": False,
    "timestep_scale": 1000.0,
    "use_t5": True,
    "t5_feat_dim": 4096,
}


def make(**changes: Any) -> nn.Module:
    """Mochi: three blocks, video of width 48 and text of width 32."""
    config = {
        **PUBLISHED,
        "depth": 3,
        "num_heads": 2,
        "hidden_size_x": 48,
        "hidden_size_y": 32,
        "mlp_ratio_x": 256.0,  # the class insists on 12288 hidden units
        "t5_feat_dim": 16,
    }
    return randomised(AsymmDiTJoint(operations=OPERATIONS, **{**config, **changes}))


def call(model: nn.Module, rows: slice) -> Tensor:
    """Two frames; the last of the text's tokens is padding."""
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype
    x = torch.randn(SAMPLES, 12, 2, 4, 4, generator=generator)
    context = torch.randn(SAMPLES, TOKENS, 16, generator=generator)
    mask = torch.ones(SAMPLES, TOKENS)
    mask[:, -1] = 0
    output: Tensor = model(
        x[rows].to(dtype),
        torch.tensor([0.9, 0.5, 0.1])[rows],
        context[rows].to(dtype),
        mask[rows],
        num_tokens=TOKENS - 1,
    )
    return output


CASES = (
    DitCase(
        name="Mochi",
        family="mochi",
        make=make,
        call=call,
        sizes={
            "Mochi 1": lambda: randomised(
                AsymmDiTJoint(operations=OPERATIONS, device="meta", **PUBLISHED)
            )
        },
    ),
)
