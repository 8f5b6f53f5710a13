"""CLIP as the rewards use it: images and token rows to vectors of length one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import clip_layouts
from .weights_file import load_exactly, read_weights

_GELU_WIDTH = 1280
"""From ViT-H on, published CLIPs have the exact GELU; OpenAI's are smaller and have QuickGELU."""


class ClipTowers(nn.Module):
    """transformers' CLIPModel, or its image half, with vectors of length one as answers."""

    def __init__(self, clip: nn.Module, image_size: int) -> None:
        super().__init__()
        self.clip: Any = clip
        self.image_size = image_size

    def image_vectors(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [B, 3, S, S] → [B, D]."""
        # Not get_image_features, whose answer differs between transformers 4 and 5.
        pooled = self.clip.vision_model(pixel_values=pixels).pooler_output
        vectors: Tensor = F.normalize(self.clip.visual_projection(pooled), dim=-1)
        return vectors

    def text_vectors(self, tokens: Tensor) -> Tensor:
        """Token numbers [B, 77] → [B, D]."""
        pooled = self.clip.text_model(input_ids=tokens).pooler_output
        vectors: Tensor = F.normalize(self.clip.text_projection(pooled), dim=-1)
        return vectors


def load_clip(name: str, path: Path, activation: str | None = None) -> ClipTowers:
    """Both towers from any known layout, in float32; ValueError where `path` is no whole CLIP.

    `activation`: transformers' name; None reads the config.json beside the file, or decides by the
    size of the image tower.
    """
    from transformers import CLIPConfig, CLIPModel

    weights = clip_layouts.to_transformers(read_weights(name, path))
    try:
        activation = activation or _activation(path, weights)
        vision = clip_layouts.vision_config(weights, activation)
        text = clip_layouts.text_config(weights, activation)
    except KeyError as error:
        raise ValueError(_no_clip(name, path, "with an image and a text tower", error)) from error
    config = CLIPConfig(
        vision_config=vision, text_config=text, projection_dim=text["projection_dim"]
    )
    with torch.device("meta"):
        clip = CLIPModel(config)
    load_exactly(name, path, clip, weights)
    return ClipTowers(clip, vision["image_size"])


def load_image_tower(name: str, path: Path) -> ClipTowers:
    """The image tower alone, from a whole CLIP or from a ComfyUI `clip_vision` file."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    weights = clip_layouts.to_transformers(read_weights(name, path))
    weights = {k: v for k, v in weights.items() if k.startswith(("vision_model.", "visual_proj"))}
    try:
        vision = clip_layouts.vision_config(weights, _activation(path, weights))
    except KeyError as error:
        raise ValueError(_no_clip(name, path, "with an image tower", error)) from error
    with torch.device("meta"):
        clip = CLIPVisionModelWithProjection(CLIPVisionConfig(**vision))
    load_exactly(name, path, clip, weights)
    return ClipTowers(clip, vision["image_size"])


def _activation(path: Path, weights: dict[str, Tensor]) -> str:
    config = path.with_name("config.json")
    if config.is_file():
        try:
            known = json.loads(config.read_text(encoding="utf-8"))
            return str(known["vision_config"].get("hidden_act", "quick_gelu"))
        except (ValueError, KeyError, TypeError, AttributeError, OSError):
            pass  # the config of something else
    width = weights["vision_model.embeddings.patch_embedding.weight"].shape[0]
    laion = any(word in path.name.lower() for word in ("laion", "datacomp"))
    return "gelu" if laion or width >= _GELU_WIDTH else "quick_gelu"


def _no_clip(name: str, path: Path, needed: str, error: KeyError) -> str:
    return (
        f"{name} needs a CLIP {needed}, but {path} has no {error.args[0]}; choose a whole CLIP in "
        "transformers' or open_clip's layout (files for SD and FLUX often hold half of one)."
    )
