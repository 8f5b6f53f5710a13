"""FLUX.1, SD3, SD3.5 and Qwen-Image in diffusers' classes, for people who script."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .case import DitCase

FLUX = {
    "in_channels": 8,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "pooled_projection_dim": 16,
    "guidance_embeds": True,
    "axes_dims_rope": (8, 12, 12),
}
SD3 = {
    "sample_size": 8,
    "in_channels": 4,
    "num_layers": 3,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "caption_projection_dim": 64,
    "pooled_projection_dim": 16,
    "out_channels": 4,
    "pos_embed_max_size": 8,
}
QWEN_IMAGE = {
    "in_channels": 16,
    "out_channels": 4,
    "num_layers": 3,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "axes_dims_rope": (8, 12, 12),
}


def make(name: str, config: dict[str, Any]) -> nn.Module:
    """The class `name` with random weights; ImportError where there is no diffusers."""
    import diffusers

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model: nn.Module = getattr(diffusers, name)(**config)
    return model.eval().requires_grad_(False)


def meta(name: str, **config: Any) -> nn.Module:
    """The class at the size of `config`, else at its default, without memory."""
    import diffusers

    with torch.device("meta"):
        model: nn.Module = getattr(diffusers, name)(**config)
    return model


def call_flux(model: nn.Module, rows: slice) -> Tensor:
    """Tokens [rows, 16, 8]."""
    return _call(
        model,
        rows,
        (16, 8),
        pooled_projections=_draw(model, rows, 2, 16),
        guidance=torch.tensor([3.5, 3.5, 3.5])[rows],
        img_ids=torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(4.0)),
        txt_ids=torch.zeros(5, 3),
    )


def call_sd3(model: nn.Module, rows: slice) -> Tensor:
    """Latents [rows, 4, 8, 8]."""
    pooled = _draw(model, rows, 2, 16)
    return _call(model, rows, (4, 8, 8), unit=1000.0, pooled_projections=pooled)


def call_qwen_image(model: nn.Module, rows: slice) -> Tensor:
    """Tokens [rows, 16, 16]."""
    return _call(model, rows, (16, 16), img_shapes=[[(1, 4, 4)]] * len(range(3)[rows]))


def _call(
    model: nn.Module, rows: slice, shape: tuple[int, ...], unit: float = 1.0, **more: Any
) -> Tensor:
    timestep = unit * torch.tensor([0.9, 0.5, 0.1])[rows]
    output: Tensor = model(
        hidden_states=_draw(model, rows, 0, *shape),
        encoder_hidden_states=_draw(model, rows, 1, 5, 24),
        timestep=timestep.to(next(model.parameters()).dtype),
        return_dict=False,
        **more,
    )[0]
    return output


def _draw(model: nn.Module, rows: slice, seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(3, *shape, generator=generator)[rows]
    return noise.to(next(model.parameters()).dtype)


FULL_SD3 = {"qk_norm": "rms_norm", "attention_head_dim": 64}

CASES = (
    DitCase(
        name="FLUX.1 in diffusers",
        family="flux",
        make=lambda: make("FluxTransformer2DModel", FLUX),
        call=call_flux,
        sizes={"FLUX.1 in diffusers": lambda: meta("FluxTransformer2DModel", guidance_embeds=True)},
    ),
    DitCase(
        name="SD3 in diffusers",
        family="sd3",
        make=lambda: make("SD3Transformer2DModel", SD3),
        call=call_sd3,
        sizes={
            "SD3-medium in diffusers": lambda: meta(
                "SD3Transformer2DModel", num_layers=24, num_attention_heads=24
            ),
            "SD3.5-large in diffusers": lambda: meta(
                "SD3Transformer2DModel", num_layers=38, num_attention_heads=38, **FULL_SD3
            ),
        },
    ),
    DitCase(
        name="SD3.5 in diffusers",
        family="sd3",
        make=lambda: make(
            "SD3Transformer2DModel",
            {**SD3, "dual_attention_layers": (0, 1), "qk_norm": "rms_norm"},
        ),
        call=call_sd3,
        sizes={
            "SD3.5-medium in diffusers": lambda: meta(
                "SD3Transformer2DModel",
                num_layers=24,
                num_attention_heads=24,
                dual_attention_layers=tuple(range(13)),
                **FULL_SD3,
            )
        },
    ),
    DitCase(
        name="Qwen-Image in diffusers",
        family="qwen-image",
        make=lambda: make("QwenImageTransformer2DModel", QWEN_IMAGE),
        call=call_qwen_image,
        sizes={"Qwen-Image in diffusers": lambda: meta("QwenImageTransformer2DModel")},
    ),
)
