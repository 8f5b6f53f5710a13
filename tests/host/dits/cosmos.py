"""Cosmos 1, Cosmos-Predict2 and Anima."""

from __future__ import annotations

from functools import partial
from typing import Any
from unittest import mock

import comfy.ops
import torch
from comfy.ldm.cosmos.model import GeneralDIT
from comfy.ldm.cosmos.predict2 import MiniTrainDIT
from torch import Tensor, nn

from ..tiny_models import randomised
from .case import SAMPLES, DitCase

TEXT, TOKENS = 16, 6

# What all published models have in common, but for the sizes.
SHAPE: dict[str, Any] = {
    "max_img_h": 240,
    "max_img_w": 240,
    "max_frames": 128,
    "in_channels": 4,
    "out_channels": 4,
    "patch_spatial": 2,
    "patch_temporal": 1,
    "concat_padding_mask": True,
    "model_channels": 64,
    "num_blocks": 2,
    "num_heads": 2,
    "crossattn_emb_channels": TEXT,
    "pos_emb_cls": "rope3d",
    "pos_emb_interpolation": "crop",
    "use_adaln_lora": True,
    "adaln_lora_dim": 8,
}
COSMOS_1: dict[str, Any] = {
    "block_config": "FA-CA-MLP",
    "block_x_format": "THWBD",
    "affline_emb_norm": True,
    "extra_per_block_abs_pos_emb": True,
    "extra_per_block_abs_pos_emb_type": "learnable",
}
PREDICT_2: dict[str, Any] = {"pos_emb_learnable": True}
FULL: dict[str, Any] = {
    "device": "meta",
    "in_channels": 16,
    "out_channels": 16,
    "crossattn_emb_channels": 1024,
    "adaln_lora_dim": 256,
}
SIZES: dict[str, dict[str, Any]] = {
    "2B": {**FULL, "model_channels": 2048, "num_blocks": 28, "num_heads": 16},
    "7B": {**FULL, "model_channels": 4096, "num_blocks": 28, "num_heads": 32},
    "14B": {**FULL, "model_channels": 5120, "num_blocks": 36, "num_heads": 40},
}


def make(model: type[nn.Module], **changes: Any) -> nn.Module:
    return randomised(model(operations=comfy.ops.disable_weight_init, **{**SHAPE, **changes}))


def make_cosmos(**changes: Any) -> nn.Module:
    return make(GeneralDIT, **{**COSMOS_1, **changes})


def make_predict2(**changes: Any) -> nn.Module:
    return make(MiniTrainDIT, **{**PREDICT_2, **changes})


def make_anima(**changes: Any) -> nn.Module:
    """Its text adapter, no part of the backbone, is made small too: it takes no argument."""
    from comfy.ldm.anima import model as anima

    small = partial(
        anima.LLMAdapter,
        source_dim=TEXT,
        target_dim=TEXT,
        model_dim=TEXT,
        num_layers=1,
        num_heads=2,
    )
    with mock.patch.object(anima, "LLMAdapter", small):
        return make(anima.Anima, **{**PREDICT_2, **changes})


def draw(model: nn.Module, frames: int, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, timesteps and text of three fixed samples, cut to `rows`."""
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype
    x = torch.randn(SAMPLES, int(model.in_channels), frames, 4, 6, generator=generator)
    context = torch.randn(SAMPLES, TOKENS, TEXT, generator=generator)
    timestep = torch.tensor([0.9, 0.5, 0.1])
    return x[rows].to(dtype), timestep[rows], context[rows].to(dtype)


def video(model: nn.Module, rows: slice) -> Tensor:
    """Three frames; the models from an image have its mask as one channel more."""
    x, timestep, context = draw(model, 3, rows)
    output: Tensor = model(x, timestep, context, fps=16.0, transformer_options={})
    return output


def image(model: nn.Module, rows: slice) -> Tensor:
    x, timestep, context = draw(model, 1, rows)
    output: Tensor = model(x, timestep, context, transformer_options={})
    return output


def first_frame_given(model: nn.Module, rows: slice) -> Tensor:
    """Every frame has a timestep, the given one 0."""
    x, timestep, context = draw(model, 3, rows)
    timestep = timestep[:, None] * torch.tensor([0.0, 1.0, 1.0])
    output: Tensor = model(x, timestep, context, fps=16.0, transformer_options={})
    return output


def adapted_text(model: nn.Module, rows: slice) -> Tensor:
    """An image whose text passes Anima's adapter on the way."""
    x, timestep, context = draw(model, 1, rows)
    tokens = torch.arange(SAMPLES * 4).view(SAMPLES, 4)[rows]
    weights = torch.ones(len(tokens), 4, 1, dtype=context.dtype)
    output: Tensor = model(
        x, timestep, context, t5xxl_ids=tokens, t5xxl_weights=weights, transformer_options={}
    )
    return output


CASES = (
    DitCase(
        name="Cosmos 1",
        family="cosmos",
        make=make_cosmos,
        call=video,
        sizes={
            "Cosmos-1.0-Diffusion-7B": lambda: make_cosmos(**SIZES["7B"]),
            "Cosmos-1.0-Diffusion-14B": lambda: make_cosmos(**SIZES["14B"]),
        },
    ),
    DitCase(
        name="Cosmos 1 from an image",
        family="cosmos",
        make=lambda: make_cosmos(in_channels=5),
        call=video,
    ),
    DitCase(
        name="Cosmos-Predict2",
        family="cosmos-predict2",
        make=make_predict2,
        call=image,
        sizes={
            "Cosmos-Predict2-2B": lambda: make_predict2(**SIZES["2B"]),
            "Cosmos-Predict2-14B": lambda: make_predict2(**SIZES["14B"]),
        },
    ),
    DitCase(
        name="Cosmos-Predict2 from an image",
        family="cosmos-predict2",
        make=lambda: make_predict2(in_channels=5),
        call=first_frame_given,
    ),
    DitCase(
        name="Anima",
        family="anima",
        make=make_anima,
        call=adapted_text,
        sizes={"Anima": lambda: make_anima(**SIZES["2B"])},
    ),
)
