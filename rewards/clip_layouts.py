"""Published layouts of CLIP weights → the one of transformers' CLIPModel, and its configuration.

Known are transformers' own and open_clip's (OpenAI's names are the same). Everything but the
activation can be read off the tensors' shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .weights_file import numbered

# Where the head is not 64 wide: ViT-H, ViT-g, ViT-bigG.
_IMAGE_HEADS = {1280: 16, 1408: 16, 1664: 16}
_HEAD_WIDTH = 64
_WHOLE = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "logit_scale": "logit_scale",
}
_NORMS = {
    "visual.ln_pre.": "vision_model.pre_layrnorm.",
    "visual.ln_post.": "vision_model.post_layernorm.",
    "ln_final.": "text_model.final_layer_norm.",
}
_IN_LAYER = {
    "ln_1.": "layer_norm1.",
    "ln_2.": "layer_norm2.",
    "attn.out_proj.": "self_attn.out_proj.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
}
_LAYER = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")
# Buffers and settings some files carry along; transformers makes its own.
_LEFT_OUT = ("position_ids", "attn_mask", "input_resolution", "context_length", "vocab_size")


def to_transformers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under CLIPModel's names; names of no known layout stay as they are."""
    renamed: dict[str, Tensor] = {}
    for key, value in weights.items():
        if key.split(".")[-1] in _LEFT_OUT:
            continue
        if key == "visual.proj":
            renamed["visual_projection.weight"] = value.T.contiguous()
        elif key == "text_projection":
            renamed["text_projection.weight"] = value.T.contiguous()
        elif found := _LAYER.fullmatch(key):
            renamed.update(_layer(found[1], found[2], found[3], value))
        else:
            renamed[_renamed(key, _WHOLE, _NORMS)] = value
    return renamed


def _layer(visual: str | None, number: str, inside: str, value: Tensor) -> dict[str, Tensor]:
    tower = "vision_model" if visual else "text_model"
    before = f"{tower}.encoder.layers.{number}."
    if inside.startswith("attn.in_proj_"):
        kind = inside.removeprefix("attn.in_proj_")
        names = [f"{before}self_attn.{part}_proj.{kind}" for part in "qkv"]
        return {n: part.clone() for n, part in zip(names, value.chunk(3), strict=True)}
    return {before + _renamed(inside, {}, _IN_LAYER): value}


def _renamed(key: str, whole: Mapping[str, str], starts: Mapping[str, str]) -> str:
    if key in whole:
        return whole[key]
    for start, replacement in starts.items():
        if key.startswith(start):
            return replacement + key.removeprefix(start)
    return key


def vision_config(weights: Mapping[str, Tensor], activation: str) -> dict[str, Any]:
    """CLIPVisionConfig's arguments for tensors in transformers' layout; KeyError without them."""
    patch = weights["vision_model.embeddings.patch_embedding.weight"]
    positions = weights["vision_model.embeddings.position_embedding.weight"].shape[0]
    width, size = patch.shape[0], patch.shape[-1]
    return {
        "hidden_size": width,
        "intermediate_size": weights["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": numbered(weights, "vision_model.encoder.layers."),
        "num_attention_heads": _IMAGE_HEADS.get(width, width // _HEAD_WIDTH),
        "patch_size": size,
        "image_size": round((positions - 1) ** 0.5) * size,
        "projection_dim": weights["visual_projection.weight"].shape[0],
        "hidden_act": activation,
    }


def text_config(weights: Mapping[str, Tensor], activation: str) -> dict[str, Any]:
    """CLIPTextConfig's arguments for tensors in transformers' layout; KeyError without them."""
    words = weights["text_model.embeddings.token_embedding.weight"]
    return {
        "vocab_size": words.shape[0],
        "hidden_size": words.shape[1],
        "intermediate_size": weights["text_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": numbered(weights, "text_model.encoder.layers."),
        "num_attention_heads": words.shape[1] // _HEAD_WIDTH,
        "max_position_embeddings": weights["text_model.embeddings.position_embedding.weight"].shape[
            0
        ],
        "projection_dim": weights["text_projection.weight"].shape[0],
        "hidden_act": activation,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
    }
