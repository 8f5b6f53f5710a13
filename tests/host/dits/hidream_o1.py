"""HiDream-O1, with and without a reference image, at the first step and at the second."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..tiny_models import OPERATIONS, randomised
from .case import SAMPLES, DitCase


def make() -> nn.Module:
    """Two layers of width 32, and a vision encoder of one block."""
    from comfy.ldm.hidream_o1.model import HiDreamO1Transformer  # not in v0.3.64

    model: Any = HiDreamO1Transformer(
        operations=OPERATIONS,
        text_config_overrides={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "rope_dims": [4, 2, 2],
        },
        vision_config_overrides={
            "hidden_size": 16,
            "num_heads": 2,
            "intermediate_size": 24,
            "depth": 1,
            "num_position_embeddings": 16,
        },
    )
    return randomised(model)


def at_full_size() -> nn.Module:
    from comfy.ldm.hidream_o1.model import HiDreamO1Transformer

    return randomised(HiDreamO1Transformer(operations=OPERATIONS, device="meta"))


def call(model: Any, rows: slice, *, references: bool = False, steps: int = 1) -> Tensor:
    """64 x 96 pixels; the output of the last of the steps."""
    model.clear_kv_cache()  # as ComfyUI leaves it for another prompt
    for _ in range(steps):
        output = step(model, rows, references=references)
    return output


def step(model: nn.Module, rows: slice, *, references: bool = False) -> Tensor:
    """A call that finds what the ones before it have kept."""
    from comfy.ldm.hidream_o1.conditioning import build_extra_conds
    from comfy.ldm.hidream_o1.model import TMS_TOKEN_ID

    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype
    pixels = torch.randn(SAMPLES, 3, 64, 96, generator=generator)[rows].to(dtype)
    words = torch.randint(0, 1000, (SAMPLES, 7), generator=generator)
    words[:, -1] = TMS_TOKEN_ID
    # ComfyUI splices references into the one prompt of a call.
    words = words[:1] if references else words[rows]
    images = [torch.rand(1, 64, 64, 3, generator=generator)] if references else None
    given = build_extra_conds(words, pixels, images)
    samples = pixels.shape[0]
    given["input_ids"] = given["input_ids"].expand(samples, -1)
    if references:
        given["ref_patches"] = given["ref_patches"].expand(samples, -1, -1)
    timestep = torch.tensor([900.0, 500.0, 100.0])[rows]
    output: Tensor = model(pixels, timestep, **given)
    return output


CASES = (
    DitCase(
        name="HiDream-O1",
        family="hidream-o1",
        make=make,
        call=call,
        sizes={"HiDream-O1-Image": at_full_size},
        note="calls with coefficients compute the prompt's keys and values at every step",
    ),
    DitCase(
        name="HiDream-O1 at the second step",
        family="hidream-o1",
        make=make,
        call=lambda model, rows: call(model, rows, steps=2),
    ),
    DitCase(
        name="HiDream-O1 with a reference",
        family="hidream-o1",
        make=make,
        call=lambda model, rows: call(model, rows, references=True),
    ),
)
