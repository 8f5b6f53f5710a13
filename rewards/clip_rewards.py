"""Rewards that compare an image with its prompt in a CLIP's space: PickScore, HPSv2, CLIPScore."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from . import pixels
from .batch import check_batch, check_prompts, check_scores
from .catalogue import called
from .clip_towers import ClipTowers, load_clip
from .protocol import Card
from .vocabulary import ClipVocabulary

_VIT_H_BYTES = 3_944_000_000  # 986 million parameters in float32


class _ClipReward:
    """The cosine between image and prompt; what is done with it is each reward's own."""

    name: str
    card: Card
    differentiable = True

    def __init__(self, network: ClipTowers, vocabulary: ClipVocabulary) -> None:
        self.network = network
        self._vocabulary = vocabulary

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores [B] of images [B, H, W, 3] in 0..1 for their prompts."""
        check_batch(self.name, images, prompts)
        check_prompts(self.name, prompts)
        device = next(self.network.parameters()).device
        tokens = self._vocabulary([self._clean(prompt) for prompt in prompts]).to(device)
        seen = pixels.normalised(self._pixels(images.to(device)))
        cosine = (self.network.image_vectors(seen) * self.network.text_vectors(tokens)).sum(-1)
        return check_scores(self.name, self._answer(cosine), len(images))

    def compare(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """Scores [B, T] of each image [B, H, W, 3] in 0..1 with each text."""
        device = next(self.network.parameters()).device
        tokens = self._vocabulary([self._clean(text) for text in texts]).to(device)
        seen = pixels.normalised(self._pixels(images.to(device)))
        return self._answer(self.network.image_vectors(seen) @ self.network.text_vectors(tokens).T)

    def _clean(self, prompt: str) -> str:
        return prompt

    def _pixels(self, images: Tensor) -> Tensor:
        return pixels.centre_square(images, self.network.image_size, round_offset=False)

    def _answer(self, cosine: Tensor) -> Tensor:
        raise NotImplementedError


class PickScore(_ClipReward):
    """Kirstain et al. 2023, https://arxiv.org/abs/2305.01569."""

    name = "PickScore"
    card = Card(
        meaning="which image people pick for a prompt",
        typical=(17.0, 24.0),
        bounds=(-100.0, 100.0),
        licence="MIT",
        memory=_VIT_H_BYTES,
        size=224,
    )

    @classmethod
    def load(cls, path: Path, vocabulary: Path) -> PickScore:
        """Read the published weights; `vocabulary` is a folder with CLIP's vocab.json."""
        towers = load_clip(cls.name, path, "gelu")
        return cls(towers, ClipVocabulary(cls.name, vocabulary))

    def _answer(self, cosine: Tensor) -> Tensor:
        scale: Tensor = self.network.clip.logit_scale
        return scale.exp() * cosine


class HPSv2(_ClipReward):
    """Wu et al. 2023, https://arxiv.org/abs/2306.09341; v2.1 is the same network, trained again."""

    def __init__(self, version: str, network: ClipTowers, vocabulary: ClipVocabulary) -> None:
        super().__init__(network, vocabulary)
        self.name = version
        self.card = self.describe()

    @staticmethod
    def describe() -> Card:
        """The card of both versions."""
        return Card(
            meaning="how much people prefer the image for its prompt",
            typical=(0.2, 0.35),
            bounds=(-1.0, 1.0),
            licence="Apache-2.0",
            memory=_VIT_H_BYTES,
            size=224,
        )

    @classmethod
    def load(cls, version: str, path: Path, vocabulary: Path) -> HPSv2:
        """Read HPS_v2_compressed.pt or HPS_v2.1_compressed.pt; `version` names the reward."""
        return cls(version, load_clip(version, path, "gelu"), ClipVocabulary(version, vocabulary))

    def _clean(self, prompt: str) -> str:
        return _without_entities(prompt)

    def _pixels(self, images: Tensor) -> Tensor:
        return pixels.whole_on_black(images, self.network.image_size)

    def _answer(self, cosine: Tensor) -> Tensor:
        return cosine


class CLIPScore(_ClipReward):
    """100 cos, after Hessel et al. 2021 (https://arxiv.org/abs/2104.08718).

    Not cut off at 0 as by torchmetrics: no image falls below, and a search needs the slope.
    """

    def __init__(self, name: str, network: ClipTowers, vocabulary: ClipVocabulary) -> None:
        super().__init__(network, vocabulary)
        self.name = name
        self.card = self.describe()

    @staticmethod
    def describe() -> Card:
        """The card with the largest common CLIP's memory; smaller ones need less."""
        return Card(
            meaning="how well the image fits its prompt",
            typical=(20.0, 35.0),
            bounds=(-100.0, 100.0),
            licence="that of the CLIP (OpenAI's and LAION's: MIT)",
            memory=_VIT_H_BYTES,
            size=224,
        )

    @staticmethod
    def named(path: Path) -> str:
        """Scores of different CLIPs differ, and so do the names."""
        return f"CLIPScore ({called(path)})"

    @classmethod
    def load(cls, path: Path, vocabulary: Path) -> CLIPScore:
        """Read any CLIP with both towers."""
        name = cls.named(path)
        return cls(name, load_clip(name, path), ClipVocabulary(name, vocabulary))

    def _clean(self, prompt: str) -> str:
        return _without_entities(prompt)

    def _pixels(self, images: Tensor) -> Tensor:
        return pixels.centre_square(images, self.network.image_size, round_offset=True)

    def _answer(self, cosine: Tensor) -> Tensor:
        return 100.0 * cosine


def _without_entities(prompt: str) -> str:
    """OpenAI's tokenizer, and those made after it, read "&amp;" as "&", even when written twice."""
    return html.unescape(html.unescape(prompt)).strip()
