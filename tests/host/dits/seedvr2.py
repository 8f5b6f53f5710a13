"""SeedVR2, 3B and 7B."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from ..tiny_models import OPERATIONS, randomised
from .case import SAMPLES, DitCase

WIDTH = 32
CAPTION = 12  # channels of the text
PACKED = "all samples are one sequence"
SIZES_3B = {"norm_eps": 1e-5, "num_layers": 32, "mlp_type": "swiglu", "vid_out_norm": True}
SIZES_7B = {
    "norm_eps": 1e-5,
    "num_layers": 36,
    "vid_dim": 3072,
    "heads": 24,
    "rope_type": "rope3d",
    "rope_dim": 64,
}


def make(**changes: Any) -> nn.Module:
    """SeedVR2: two blocks with weights for each stream and two with weights for both."""
    from comfy.ldm.seedvr.model import NaDiT  # not in v0.3.64

    config: dict[str, Any] = {
        "norm_eps": 1e-5,
        "num_layers": 4,
        "mlp_type": "swiglu",
        "vid_dim": WIDTH,
        "txt_in_dim": CAPTION,
        "heads": 2,
        "head_dim": 24,
        "mm_layers": 2,
        "rope_dim": 24,
        "vid_out_norm": True,
    }
    return randomised(NaDiT(operations=OPERATIONS, **{**config, **changes}))


def make_7b(**changes: Any) -> nn.Module:
    from comfy.ldm.seedvr import model  # not in v0.3.64

    # The class knows the 7B model, whose blocks compute otherwise, by its width.
    with mock.patch.object(model, "SEEDVR2_7B_VID_DIM", WIDTH):
        return make(rope_dim=12, vid_out_norm=None, **changes)


def at_full_size(**config: Any) -> nn.Module:
    from comfy.ldm.seedvr.model import NaDiT

    with torch.device("meta"):
        return randomised(NaDiT(device="meta", operations=OPERATIONS, **config))


def call(model: nn.Module, rows: slice) -> Tensor:
    """Three frames, with the latents of the video to restore and their mask."""
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype
    x, condition, context = (
        torch.randn(SAMPLES, *shape, generator=generator)[rows].to(dtype)
        for shape in ((16, 3, 4, 6), (17, 3, 4, 6), (5, CAPTION))
    )
    output: Tensor = model(
        x,
        torch.tensor([900.0, 500.0, 100.0])[rows],
        context,
        condition=condition,
        transformer_options={"cond_or_uncond": [0]},
    )
    return output


def call_both(model: nn.Module, rows: slice) -> Tensor:
    """Positive and negative text in one batch, as with CFG."""
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype
    x, condition = (
        torch.randn(1, channels, 3, 4, 6, generator=generator).to(dtype).repeat(2, 1, 1, 1, 1)
        for channels in (16, 17)
    )
    output: Tensor = model(
        x,
        torch.tensor([900.0, 900.0]),
        torch.randn(2, 5, CAPTION, generator=generator).to(dtype),
        condition=condition,
        transformer_options={"cond_or_uncond": [1, 0]},
    )
    return output


CASES = (
    DitCase(
        name="SeedVR2 3B",
        family="seedvr2",
        make=make,
        call=call,
        sizes={"SeedVR2 3B": lambda: at_full_size(**SIZES_3B)},
        one_gain_for_all=PACKED,
    ),
    DitCase(
        name="SeedVR2 with CFG",
        family="seedvr2",
        make=make,
        call=call_both,
        one_gain_for_all=PACKED,
    ),
    DitCase(
        name="SeedVR2 7B",
        family="seedvr2",
        make=lambda: make_7b(mlp_type="normal", mm_layers=4),
        call=call,
        sizes={
            "SeedVR2 7B": lambda: at_full_size(mlp_type="normal", mm_layers=36, **SIZES_7B),
        },
        one_gain_for_all=PACKED,
    ),
    DitCase(
        name="SeedVR2 7B with shared weights",
        family="seedvr2",
        make=make_7b,
        call=call,
        sizes={
            "SeedVR2 7B, shared weights": lambda: at_full_size(mlp_type="swiglu", **SIZES_7B),
        },
        one_gain_for_all=PACKED,
    ),
)
