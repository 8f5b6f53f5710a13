"""Real ComfyUI diffusion models, tiny and with random weights, on the CPU."""

from __future__ import annotations

from typing import Any

import comfy.ops
import torch
from comfy.ldm.flux.model import Flux, FluxParams
from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper
from torch import Tensor, nn

OPERATIONS = comfy.ops.disable_weight_init

# What ComfyUI's models of FLUX's blocks have in common here: two double and two single ones.
FLUX_BLOCKS = {
    "context_in_dim": 16,
    "hidden_size": 64,
    "mlp_ratio": 4.0,
    "num_heads": 2,
    "depth": 2,
    "depth_single_blocks": 2,
    "axes_dim": [8, 12, 12],
    "qkv_bias": True,
}
FLUX = {
    **FLUX_BLOCKS,
    "in_channels": 4,
    "out_channels": 4,
    "vec_in_dim": 24,
    "theta": 10_000,
    "patch_size": 2,
    "guidance_embed": True,
    "txt_ids_dims": [],
}


def randomised(model: nn.Module) -> nn.Module:
    """Give every weight and buffer values: ComfyUI's layers are created without."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.is_meta:
                continue  # of a published size, which is only counted
            if not tensor.numel() or not tensor.is_floating_point():
                continue  # a mark in the checkpoint: Qwen-Image-Edit-2511's __index_timestep_zero__
            width = tensor.shape[-1] if tensor.ndim else 1
            tensor.normal_(0.0, width**-0.5, generator=generator)
            if "norm" in name or ".ln_" in name:
                tensor.add_(1.0)
    return model.eval().requires_grad_(False)


def make_flux(**changes: Any) -> nn.Module:
    """FLUX.1-dev: two double and two single blocks."""
    config = {**FLUX, **changes}
    if "txt_ids_dims" not in FluxParams.__dataclass_fields__:
        config.pop("txt_ids_dims")  # v0.3.64 has no such field
    return randomised(Flux(operations=OPERATIONS, **config))


def make_sd3(dual: tuple[int, ...] = (), depth: int = 3, **changes: Any) -> nn.Module:
    """SD3 with three blocks, or SD3.5 with a second attention in the blocks `dual`."""
    config: dict[str, Any] = {
        "input_size": None,
        "in_channels": 4,
        "depth": depth,
        "adm_in_channels": 24,
        "context_embedder_config": {
            "target": "torch.nn.Linear",
            "params": {"in_features": 16, "out_features": 64 * depth},
        },
        "pos_embed_max_size": 8,
        "num_patches": 64,
        "qk_norm": "rms",
        "x_block_self_attn_layers": list(dual),
    }
    return randomised(OpenAISignatureMMDITWrapper(operations=OPERATIONS, **{**config, **changes}))


def call(model: nn.Module, rows: slice = slice(None)) -> Tensor:
    """The model's output for three fixed samples [3, 4, 8, 8], or for some of them."""
    generator = torch.Generator().manual_seed(1)
    x, context, y = (
        torch.randn(3, *shape, generator=generator)[rows] for shape in ((4, 8, 8), (5, 16), (24,))
    )
    timestep = torch.tensor([0.9, 0.5, 0.1])[rows]
    dtype = next(model.parameters()).dtype
    arguments = [x.to(dtype), timestep, context.to(dtype)]
    if hasattr(model, "joint_blocks"):
        arguments[1] = 1000.0 * timestep
        output: Tensor = model(*arguments, y=y.to(dtype))
        return output
    output = model(*arguments, y=y.to(dtype), guidance=torch.full_like(timestep, 3.5))
    return output
