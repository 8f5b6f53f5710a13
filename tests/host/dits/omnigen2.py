"""OmniGen2 and Boogu, with and without reference latents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..tiny_models import OPERATIONS, randomised
from .case import SAMPLES, DitCase

CAPTION = 20  # channels of the text

TINY = {
    "in_channels": 4,
    "hidden_size": 48,
    "num_layers": 2,
    "num_refiner_layers": 2,
    "num_attention_heads": 3,
    "num_kv_heads": 1,
    "multiple_of": 16,
    "axes_dim_rope": (4, 6, 6),
    "timestep_scale": 1000.0,
}
OMNIGEN2_FULL = {
    "in_channels": 16,
    "hidden_size": 2520,
    "num_layers": 32,
    "num_attention_heads": 21,
    "num_kv_heads": 7,
    "multiple_of": 256,
    "axes_dim_rope": (40, 40, 40),
    "text_feat_dim": 2048,
    "device": "meta",
}


def make_omnigen2(**changes: Any) -> nn.Module:
    from comfy.ldm.omnigen.omnigen2 import OmniGen2Transformer2DModel

    config: dict[str, Any] = {**TINY, "text_feat_dim": CAPTION, **changes}
    return randomised(OmniGen2Transformer2DModel(operations=OPERATIONS, **config))


def make_boogu(**changes: Any) -> nn.Module:
    from comfy.ldm.boogu.model import BooguTransformer2DModel  # not in v0.3.64

    config: dict[str, Any] = {
        **TINY,
        "num_double_stream_layers": 2,
        "instruction_feat_dim": CAPTION,
        **changes,
    }
    return randomised(BooguTransformer2DModel(operations=OPERATIONS, **config))


def boogu_at_full_size() -> nn.Module:
    from comfy.ldm.boogu.model import BooguTransformer2DModel

    return randomised(BooguTransformer2DModel(operations=OPERATIONS, device="meta"))


def call(model: nn.Module, rows: slice, *, references: bool) -> Tensor:
    """Latents of 8 x 8, with two references of other sizes if asked for."""
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype

    def draw(*shape: int) -> Tensor:
        return torch.randn(SAMPLES, *shape, generator=generator)[rows].to(dtype)

    latents, context = draw(4, 8, 8), draw(5, CAPTION)
    timestep = torch.tensor([0.9, 0.5, 0.1])[rows]
    given = [draw(4, 4, 6), draw(4, 6, 4)] if references else None
    output: Tensor = model(latents, timestep, context, 5, ref_latents=given)
    return output


CASES = (
    DitCase(
        name="OmniGen2",
        family="omnigen2",
        make=make_omnigen2,
        call=lambda model, rows: call(model, rows, references=False),
        sizes={"OmniGen2": lambda: make_omnigen2(**OMNIGEN2_FULL)},
        idle=("reference_refiner",),
        note="the coefficients of the reference refiner act where there are reference latents",
    ),
    DitCase(
        name="OmniGen2 with references",
        family="omnigen2",
        make=make_omnigen2,
        call=lambda model, rows: call(model, rows, references=True),
    ),
    DitCase(
        name="Boogu-Image",
        family="boogu",
        make=make_boogu,
        call=lambda model, rows: call(model, rows, references=False),
        sizes={"Boogu-Image-0.1": boogu_at_full_size},
        idle=("reference_refiner",),
        note="the coefficients of the reference refiner act where there are reference latents",
    ),
    DitCase(
        name="Boogu-Image with references",
        family="boogu",
        make=make_boogu,
        call=lambda model, rows: call(model, rows, references=True),
    ),
)
