"""Mage-Flow and Lens, which have double blocks like Qwen-Image's, and JoyImage."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..tiny_models import OPERATIONS, randomised
from .case import DitCase


def make_mage_flow(**changes: Any) -> nn.Module:
    from comfy.ldm.mage_flow.model import MageFlowTransformer2DModel

    config: dict[str, Any] = {
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 3,
        "attention_head_dim": 32,
        "num_attention_heads": 2,
        "joint_attention_dim": 24,
        "axes_dims_rope": (8, 12, 12),
    }
    return randomised(MageFlowTransformer2DModel(operations=OPERATIONS, **{**config, **changes}))


def make_lens(**changes: Any) -> nn.Module:
    """Lens with a text of two layers' features, side by side."""
    from comfy.ldm.lens.model import LensTransformer2DModel

    config: dict[str, Any] = {
        "in_channels": 4,
        "out_channels": 1,
        "num_layers": 3,
        "attention_head_dim": 32,
        "num_attention_heads": 2,
        "enc_hidden_dim": 12,
        "axes_dims_rope": (8, 12, 12),
        "selected_layer_index": (0, 1),
    }
    return randomised(LensTransformer2DModel(operations=OPERATIONS, **{**config, **changes}))


def make_joyimage(**changes: Any) -> nn.Module:
    from comfy.ldm.joyimage.model import JoyImageTransformer3DModel

    config: dict[str, Any] = {
        "in_channels": 4,
        "hidden_size": 64,
        "num_attention_heads": 2,
        "text_dim": 24,
        "num_layers": 3,
        "rope_dim_list": [8, 12, 12],
        "theta": 10_000,
    }
    return randomised(JoyImageTransformer3DModel(operations=OPERATIONS, **{**config, **changes}))


def call(
    model: nn.Module,
    rows: slice,
    *,
    size: tuple[int, ...] = (4, 4),
    references: tuple[tuple[int, ...], ...] = (),
    masked: bool = False,
    time_factor: float = 1.0,
) -> Tensor:
    """Latents [rows, 4, *size], with references of the given sizes, and texts that are 3, 4 and 5
    tokens long if `masked`.
    """
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype

    def draw(*shape: int) -> Tensor:
        return torch.randn(3, *shape, generator=generator)[rows].to(dtype)

    latents, context = draw(4, *size), draw(5, 24)
    timestep = time_factor * torch.tensor([0.9, 0.5, 0.1])[rows]
    arguments: dict[str, Any] = {}
    if references:
        arguments["ref_latents"] = [draw(4, *reference) for reference in references]
    if masked:
        arguments["attention_mask"] = (torch.arange(5) < torch.tensor([[3], [4], [5]]))[rows].long()
    output: Tensor = model(latents, timestep, context, **arguments)
    return output


CASES = (
    DitCase(
        name="Mage-Flow",
        family="mage-flow",
        make=make_mage_flow,
        call=lambda model, rows: call(model, rows, masked=True),
        sizes={
            "Mage-Flow": lambda: make_mage_flow(
                device="meta",
                in_channels=128,
                out_channels=128,
                num_layers=12,
                attention_head_dim=128,
                num_attention_heads=24,
                joint_attention_dim=2560,
                axes_dims_rope=(16, 56, 56),
            )
        },
    ),
    DitCase(
        name="Mage-Flow with references",
        family="mage-flow",
        make=make_mage_flow,
        call=lambda model, rows: call(model, rows, references=((3, 4), (2, 2))),
    ),
    DitCase(
        name="Lens",
        family="lens",
        make=make_lens,
        call=lambda model, rows: call(model, rows, masked=True),
        sizes={
            "Lens": lambda: make_lens(
                device="meta",
                in_channels=128,
                out_channels=32,
                num_layers=48,
                attention_head_dim=64,
                num_attention_heads=24,
                enc_hidden_dim=2880,
                axes_dims_rope=(8, 28, 28),
                selected_layer_index=(5, 11, 17, 23),
            )
        },
    ),
    DitCase(
        name="JoyImage-Edit",
        family="joyimage",
        make=make_joyimage,
        call=lambda model, rows: call(
            model, rows, size=(1, 4, 4), references=((1, 4, 6), (1, 2, 4)), time_factor=1000.0
        ),
        sizes={
            "JoyAI-Image-Edit": lambda: make_joyimage(
                device="meta",
                in_channels=16,
                hidden_size=4096,
                num_attention_heads=32,
                text_dim=4096,
                num_layers=40,
                rope_dim_list=[16, 56, 56],
            )
        },
    ),
)
