"""Ideogram 4, with text and, as for its unconditional half, without."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..tiny_models import OPERATIONS, randomised
from .case import SAMPLES, DitCase

CAPTION = 20  # channels of the text


def make() -> nn.Module:
    """Two layers of width 32."""
    from comfy.ldm.ideogram4.model import Ideogram4Transformer2DModel  # not in v0.3.64

    config: dict[str, Any] = {
        "in_channels": 16,
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "intermediate_size": 48,
        "adaln_dim": 12,
        "llm_features_dim": CAPTION,
        "mrope_section": (4, 2, 2),
    }
    return randomised(Ideogram4Transformer2DModel(operations=OPERATIONS, **config))


def at_full_size() -> nn.Module:
    from comfy.ldm.ideogram4.model import Ideogram4Transformer2DModel

    return randomised(Ideogram4Transformer2DModel(operations=OPERATIONS, device="meta"))


def call(model: nn.Module, rows: slice, *, text: bool) -> Tensor:
    """Latents of 4 x 4; one sample's text is shorter than the others'."""
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype
    latents = torch.randn(SAMPLES, 16, 4, 4, generator=generator)[rows].to(dtype)
    context = torch.randn(SAMPLES, 5, CAPTION, generator=generator)[rows].to(dtype)
    mask = torch.ones(SAMPLES, 5, dtype=torch.long)
    mask[1, 3:] = 0
    timestep = torch.tensor([0.9, 0.5, 0.1])[rows]
    given = {"context": context, "attention_mask": mask[rows]} if text else {"context": None}
    output: Tensor = model(latents, timestep, **given)
    return output


CASES = (
    DitCase(
        name="Ideogram 4",
        family="ideogram4",
        make=make,
        call=lambda model, rows: call(model, rows, text=True),
        sizes={"Ideogram 4": at_full_size},
    ),
    DitCase(
        name="Ideogram 4 without text",
        family="ideogram4",
        make=make,
        call=lambda model, rows: call(model, rows, text=False),
    ),
)
