"""ComfyUI's own DiT classes with random weights, as the MODEL that a loader would hand out.

No checkpoint is read: a class, its shape and the inputs of one denoising call are all that speed
depends on. ComfyUI must be importable (`experiments/host.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher

FLUX = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "mlp_ratio": 4.0,
    "theta": 10000,
    "qkv_bias": True,
    "guidance_embed": True,
    "txt_ids_dims": [],
}
WAN = {
    "image_model": "wan2.1",
    "model_type": "t2v",
    "patch_size": (1, 2, 2),
    "text_dim": 4096,
    "freq_dim": 256,
}


SD3 = {
    "in_channels": 16,
    "patch_size": 2,
    "input_size": None,
    "adm_in_channels": 2048,
    "pos_embed_max_size": 384,
    "num_patches": 384 * 384,
    "pos_embed_scaling_factor": None,
    "qk_norm": "rms",
}


@dataclass(frozen=True)
class Shape:
    """A model and the inputs of one call of it."""

    kind: str  # a class of comfy.supported_models
    config: Mapping[str, Any]  # of the diffusion model
    latent: tuple[int, ...]  # without the batch
    text_tokens: int
    text_width: int = 4096
    pooled: int = 0  # width of the pooled text, 0 where the model takes none
    batch: int = 1


def flux(
    double: int, single: int, heads: int, head: int, side: int, text: int, width: int = 0
) -> Shape:
    """FLUX.1-dev with `heads` heads of width `head`, for a latent of `side` x `side`.

    `width`: of a prompt's tokens and its pooled embedding, where it is not FLUX's own.
    """
    rest = head - head // 8
    text_width, pooled = (width, width) if width else (4096, 768)
    config = {
        **FLUX,
        "context_in_dim": text_width,
        "vec_in_dim": pooled,
        "hidden_size": heads * head,
        "num_heads": heads,
        "depth": double,
        "depth_single_blocks": single,
        "axes_dim": [head // 8, rest // 2, rest // 2],
    }
    return Shape("Flux", config, (16, side, side), text, text_width, pooled)


def sd3(depth: int, dual: int, side: int, text: int) -> Shape:
    """SD3.5 of `depth` blocks and as many heads of width 64, the first `dual` blocks with a second
    attention (24 and 13 are SD3.5-medium).
    """
    hidden = 64 * depth
    context = {"in_features": 4096, "out_features": hidden}
    config = {
        **SD3,
        "depth": depth,
        "x_block_self_attn_layers": list(range(dual)),
        "context_embedder_config": {"target": "torch.nn.Linear", "params": context},
    }
    return Shape("SD3", config, (16, side, side), text, pooled=SD3["adm_in_channels"])


def wan(blocks: int, heads: int, head: int, ffn: int, frames: int, side: int, text: int) -> Shape:
    """Wan 2.1 text to video: its gates are made outside the blocks, so whole outputs are tapped."""
    width = heads * head
    config = {**WAN, "dim": width, "ffn_dim": ffn, "num_heads": heads, "num_layers": blocks}
    return Shape("WAN21_T2V", config, (16, frames, side, side), text)


def make_model(shape: Shape, device: torch.device, dtype: torch.dtype) -> ModelPatcher:
    """A loaded MODEL with normal weights of deviation fan_in^-1/2."""
    config = getattr(comfy.supported_models, shape.kind)(dict(shape.config))
    config.set_inference_dtype(dtype, None)
    model = config.get_model({}, "", device=device)
    with torch.no_grad():
        for name, tensor in model.diffusion_model.named_parameters():
            tensor.normal_(0.0, tensor.shape[-1] ** -0.5)
            if "norm" in name:
                tensor.add_(1.0)
    patcher = comfy.model_patcher.ModelPatcher(model, device, torch.device("cpu"))
    comfy.model_management.load_models_gpu([patcher])
    return patcher


def make_inputs(shape: Shape, device: torch.device) -> dict[str, Any]:
    """Arguments of `BaseModel.apply_model` in the middle of sampling, without the wrappers."""
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(shape.batch, *size, generator=generator).to(device)

    inputs = {
        "x": normal(*shape.latent),
        "t": torch.full((shape.batch,), 0.7, device=device),
        "c_crossattn": normal(shape.text_tokens, shape.text_width),
    }
    if shape.pooled:
        inputs["y"] = normal(shape.pooled)
    if shape.config.get("guidance_embed"):
        inputs["guidance"] = torch.full((shape.batch,), 3.5, device=device)
    return inputs


def on_meta(shape: Shape) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """The diffusion model alone, on the meta device, where nothing is computed, and what
    `make_inputs` gives there.
    """
    meta = torch.device("meta")
    config = getattr(comfy.supported_models, shape.kind)(dict(shape.config))
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "", device=meta)
    return model.diffusion_model, make_inputs(shape, meta)
