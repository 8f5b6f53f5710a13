"""ImageReward (Xu et al. 2023, https://arxiv.org/abs/2304.05977) on transformers' BLIP.

A ViT-L/16 sees the image, BERT reads the prompt and looks at the image by cross-attention; a head
of five linear layers turns its first token into the score.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from . import pixels
from .batch import check_batch, check_prompts, check_scores
from .protocol import Card
from .vocabulary import BertVocabulary
from .weights_file import load_exactly, numbered, read_weights

PROMPT_LENGTH = 35
# Of the training data's scores, in the published code.
MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072
_HEAD_WIDTH = 64
_VISION = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj.": "embeddings.patch_embedding.",
    "norm.": "post_layernorm.",
}
_VISION_LAYER = {
    "norm1.": "layer_norm1.",
    "norm2.": "layer_norm2.",
    "attn.qkv.": "self_attn.qkv.",
    "attn.proj.": "self_attn.projection.",
    "mlp.": "mlp.",
}


class _Network(nn.Module):
    def __init__(self, vision: nn.Module, text: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.vision, self.text, self.head = vision, text, head


class ImageReward:
    """Standardised preference of people: 0 is an average image of the training data."""

    name = "ImageReward"
    differentiable = True
    card = Card(
        meaning="how much people prefer the image for its prompt, in standard deviations",
        typical=(-1.5, 1.5),
        licence="Apache-2.0",
        memory=1_787_000_000,
        size=224,
    )

    def __init__(self, network: _Network, image_size: int, vocabulary: BertVocabulary) -> None:
        self.network = network
        self._size, self._vocabulary = image_size, vocabulary

    @classmethod
    def load(cls, path: Path, vocabulary: Path) -> ImageReward:
        """Read ImageReward.pt, or the same tensors as .safetensors; `vocabulary` is a vocab.txt."""
        words = BertVocabulary(cls.name, vocabulary)
        weights = _renamed(read_weights(cls.name, path))
        try:
            network, size = _empty_network(weights)
        except (KeyError, IndexError) as error:
            raise ValueError(
                f"{path} does not hold the weights of {cls.name}: it has no {error.args[0]}; "
                "choose ImageReward.pt."
            ) from error
        load_exactly(cls.name, path, network, weights)
        return cls(network, size, words)

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores [B] of images [B, H, W, 3] in 0..1 for their prompts."""
        check_batch(self.name, images, prompts)
        check_prompts(self.name, prompts)
        device = next(self.network.parameters()).device
        tokens, mask = (part.to(device) for part in self._vocabulary(prompts, PROMPT_LENGTH))
        seen = pixels.centre_square(images.to(device), self._size, round_offset=True)
        image = self.network.vision(pixel_values=pixels.normalised(seen)).last_hidden_state
        read = self.network.text(
            input_ids=tokens,
            attention_mask=mask,
            encoder_hidden_states=image,
            encoder_attention_mask=torch.ones(image.shape[:2], dtype=torch.long, device=device),
            use_cache=False,
            # The published text encoder reads both ways: only its training as a writer did not.
            is_decoder=False,
        ).last_hidden_state[:, 0]
        scores = (self.network.head(read).squeeze(-1) - MEAN) / DEVIATION
        return check_scores(self.name, scores, len(images))


def _renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The checkpoint's tensors under `_Network`'s names, without those that no score needs."""
    renamed: dict[str, Tensor] = {}
    for key, value in weights.items():
        if key.endswith("position_ids") or key.startswith(("blip.vision_proj", "blip.text_proj")):
            continue
        if key.startswith("blip.visual_encoder."):
            renamed["vision." + _vision_name(key.removeprefix("blip.visual_encoder."))] = value
        elif key.startswith("blip.text_encoder."):
            renamed["text." + key.removeprefix("blip.text_encoder.")] = value
        elif key.startswith("mlp.layers."):
            renamed["head." + key.removeprefix("mlp.layers.")] = value
        else:
            renamed[key] = value
    return renamed


def _vision_name(key: str) -> str:
    layer = re.fullmatch(r"blocks\.(\d+)\.(.+)", key)
    before = f"encoder.layers.{layer.group(1)}." if layer else ""
    rest, names = (layer.group(2), _VISION_LAYER) if layer else (key, _VISION)
    for name, replacement in names.items():
        if rest.startswith(name):
            return before + replacement + rest.removeprefix(name)
    return key


def _empty_network(weights: Mapping[str, Tensor]) -> tuple[_Network, int]:
    """A network on the meta device with room for `weights`, and its image size in pixels."""
    from transformers import BlipTextModel, BlipVisionModel
    from transformers.models.blip.configuration_blip import BlipTextConfig, BlipVisionConfig

    patch = weights["vision.embeddings.patch_embedding.weight"]
    width, patch_size = patch.shape[0], patch.shape[-1]
    patches = weights["vision.embeddings.position_embedding"].shape[1] - 1
    size = round(patches**0.5) * patch_size
    words = weights["text.embeddings.word_embeddings.weight"]
    vision = BlipVisionConfig(
        hidden_size=width,
        intermediate_size=weights["vision.encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=numbered(weights, "vision.encoder.layers."),
        num_attention_heads=width // _HEAD_WIDTH,
        image_size=size,
        patch_size=patch_size,
        layer_norm_eps=1e-6,
    )
    text = BlipTextConfig(
        vocab_size=words.shape[0],
        hidden_size=words.shape[1],
        encoder_hidden_size=width,
        intermediate_size=weights["text.encoder.layer.0.intermediate.dense.weight"].shape[0],
        num_hidden_layers=numbered(weights, "text.encoder.layer."),
        num_attention_heads=words.shape[1] // _HEAD_WIDTH,
        max_position_embeddings=weights["text.embeddings.position_embeddings.weight"].shape[0],
        layer_norm_eps=1e-12,
        is_decoder=True,  # gives it cross-attention
    )
    with torch.device("meta"):
        linear = {0: (words.shape[1], 1024), 2: (1024, 128), 4: (128, 64), 6: (64, 16), 7: (16, 1)}
        head = nn.Sequential(
            *(nn.Linear(*linear[i]) if i in linear else nn.Identity() for i in range(8))
        )
        text_model = BlipTextModel(text, add_pooling_layer=False)
        return _Network(BlipVisionModel(vision), text_model, head), size
