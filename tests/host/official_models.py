"""The models of the official code's recordings in ComfyUI's classes, with the recorded weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.utils
import torch
from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel
from torch import Tensor, nn

from comfyui_calibri.calibri.official_vector import OfficialVector

from .tiny_models import OPERATIONS, make_flux, make_sd3


def make_model(vector: OfficialVector) -> nn.Module:
    """ComfyUI's class for the vector's, filled through ComfyUI's own key maps."""
    make = {
        "FluxTransformer2DModel": _make_flux,
        "SD3Transformer2DModel": _make_sd3,
        "QwenImageTransformer2DModel": _make_qwen_image,
    }[vector.model_class]
    return make(vector.config, vector.weights)


def call_model(model: nn.Module, inputs: Mapping[str, Any], copies: int = 1) -> Tensor:
    """A call of ComfyUI's model with diffusers' inputs, `copies` times one after the other in one
    batch; the output as diffusers gives it.
    """

    def tile(name: str) -> Tensor:
        value: Tensor = inputs[name]
        if name.endswith("_ids"):
            value = value.expand(len(inputs["timestep"]), *value.shape)
        return value.repeat(copies, *(1,) * (value.ndim - 1))

    forward: Any = model
    context, timestep = tile("encoder_hidden_states"), tile("timestep")
    output: Tensor
    if hasattr(model, "joint_blocks"):
        output = forward(
            tile("hidden_states"), timestep, y=tile("pooled_projections"), context=context
        )
        return output
    if hasattr(model, "double_blocks"):
        output = forward.forward_orig(
            tile("hidden_states"),
            tile("img_ids"),
            context,
            tile("txt_ids"),
            timestep,
            tile("pooled_projections"),
            tile("guidance") if "guidance" in inputs else None,
        )
        return output
    _, height, width = inputs["img_shapes"][0][0]
    latents = _unpack(tile("hidden_states"), height, width)
    mask = tile("encoder_hidden_states_mask") if "encoder_hidden_states_mask" in inputs else None
    return _pack(forward(latents, timestep, context, attention_mask=mask))


def _pack(latents: Tensor) -> Tensor:
    """[B, C, 1, H, W] -> Qwen-Image's tokens [B, H/2 · W/2, 4 C]; `_unpack` is the way back."""
    patches = latents.squeeze(2).unflatten(-2, (-1, 2)).unflatten(-1, (-1, 2))
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def _unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    patches = tokens.unflatten(1, (height, width)).unflatten(3, (-1, 2, 2))
    return patches.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3).unsqueeze(2)


def _make_flux(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
    heads = config["num_attention_heads"]
    ours = {
        "hidden_size": heads * config["attention_head_dim"],
        "depth": config["num_layers"],
        "depth_single_blocks": config["num_single_layers"],
    }
    model = make_flux(
        in_channels=config["in_channels"],
        out_channels=config["in_channels"],
        vec_in_dim=config["pooled_projection_dim"],
        context_in_dim=config["joint_attention_dim"],
        num_heads=heads,
        axes_dim=list(config["axes_dims_rope"]),
        patch_size=1,
        guidance_embed=config["guidance_embeds"],
        **ours,
    )
    return _load(model, weights, comfy.utils.flux_to_diffusers(ours))


def _make_sd3(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
    depth, side = config["num_layers"], config["pos_embed_max_size"]
    context = {"in_features": config["joint_attention_dim"], "out_features": 64 * depth}
    model = make_sd3(
        dual=tuple(config["dual_attention_layers"]),
        depth=depth,
        in_channels=config["in_channels"],
        adm_in_channels=config["pooled_projection_dim"],
        context_embedder_config={"target": "torch.nn.Linear", "params": context},
        pos_embed_max_size=side,
        num_patches=side**2,
        qk_norm="rms" if config["qk_norm"] else None,
    )
    key_map = comfy.utils.mmdit_to_diffusers({"depth": depth, "num_blocks": depth})
    return _load(model, weights, key_map)


def _make_qwen_image(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
    model = QwenImageTransformer2DModel(operations=OPERATIONS, **config)
    return _load(model, weights, {name: name for name in weights})


def _load(model: nn.Module, weights: Mapping[str, Tensor], key_map: Mapping[str, Any]) -> nn.Module:
    filled = {name: torch.full_like(value, torch.nan) for name, value in model.state_dict().items()}
    for name, weight in weights.items():
        target = key_map[name]
        if isinstance(target, str):
            filled[target].copy_(weight)
        elif len(target) == 3:  # shift and scale in another order
            filled[target[0]].copy_(target[2](weight))
        else:
            key, (axis, start, length) = target
            filled[key].narrow(axis, start, length).copy_(weight)
    assert not any(value.isnan().any() for value in filled.values())
    model.load_state_dict(filled)
    return model.eval().requires_grad_(False)
