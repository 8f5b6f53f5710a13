"""The demo model as an evaluator without ComfyUI: candidates and samples in, rewards out.

From equal noise it draws the pictures that ComfyUI's sampler draws (tests/host), so what it finds
is found for ComfyUI too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..calibri.backbones import Backbone, read_backbone
from ..calibri.ensemble import combine, combine_guidance
from ..calibri.ensemble_space import EnsembleSpace
from ..calibri.evaluation import Batch, Floats, Sample
from ..calibri.taps import GainTaps
from .autoencoder import LATENT_CHANNELS, Autoencoder
from .model import Flux
from .reward import DemoReward
from .sampler import Encoded, Velocity, guided, sample
from .text_encoder import TextEncoder, token_rows
from .weights import DIT, REWARD, TEXT_ENCODER, VAE, WEIGHTS, load_into

SIDE = 8
"""Of a latent, in cells; a picture has 64 pixels."""
MOST_ROWS = 16  # more at once decode slower per picture: they overflow a CPU's caches


@dataclass(frozen=True)
class DemoModels:
    """All that turns a prompt into a scored picture."""

    dit: Flux
    text_encoder: TextEncoder
    autoencoder: Autoencoder
    reward: DemoReward

    @classmethod
    def load(cls, folder: Path = WEIGHTS) -> DemoModels:
        """Read the files of `weights.py`, in float32 on the CPU."""
        return cls(
            dit=load_into(Flux(), DIT, folder),
            text_encoder=load_into(TextEncoder(), TEXT_ENCODER, folder),
            autoencoder=load_into(Autoencoder(), VAE, folder),
            reward=DemoReward.load(folder / REWARD),
        )

    @property
    def backbone(self) -> Backbone:
        """Where the DiT's branches meet their gates."""
        return read_backbone(self.dit)


@dataclass(frozen=True)
class Setting:
    """How pictures are sampled: Euler steps of equal size, and the guidance scale."""

    steps: int
    cfg: float = 1.0


class DemoEvaluator:
    """The demo model at one setting; satisfies `calibri.evaluation.Evaluator`.

    `Sample.prompt` indexes `prompts`. A space of several members is summed as ComfyUI's nodes do;
    with guidance, its weights stand in for the setting's cfg.
    """

    def __init__(
        self, models: DemoModels, space: EnsembleSpace, prompts: Sequence[str], setting: Setting
    ) -> None:
        self.space, self.setting = space, setting
        self.prompts, self.reward = tuple(prompts), models.reward
        self._dit, self._taps = models.dit, GainTaps(models.dit, space.backbone)
        # A third faster than the usual order of axes, to the same pictures.
        self._autoencoder = models.autoencoder
        self._autoencoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.no_grad():
            self._encoded = models.text_encoder(token_rows(list(self.prompts)))
            self._negative = models.text_encoder(token_rows([""]))

    def plan(self, candidates: int, bucket: Sequence[Sample]) -> list[Batch]:
        """Batches of near equal size; all candidates of a sample stand together."""
        pairs = [(candidate, p) for p in range(len(bucket)) for candidate in range(candidates)]
        count = -(-len(pairs) // MOST_ROWS)
        size = -(-len(pairs) // max(count, 1))
        return [tuple(pairs[start : start + size]) for start in range(0, len(pairs), size)]

    @torch.no_grad()
    def run(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample]) -> Floats:
        """Rewards [len(batch)]."""
        prompts = [self.prompts[bucket[position].prompt] for _, position in batch]
        rewards = self.reward.score(self._draw(batch, vectors, bucket), prompts)
        return np.asarray(rewards.double().numpy())

    def images(self, vectors: Floats, bucket: Sequence[Sample]) -> NDArray[np.uint8]:
        """Pictures [K, len(bucket), 64, 64, 3]."""
        pictures: NDArray[np.uint8] | None = None
        for batch in self.plan(len(vectors), bucket):
            drawn = (self._draw(batch, vectors, bucket) * 255).round().byte().numpy()
            if pictures is None:
                pictures = np.empty((len(vectors), len(bucket), *drawn.shape[1:]), np.uint8)
            for (candidate, position), picture in zip(batch, drawn, strict=True):
                pictures[candidate, position] = picture
        assert pictures is not None
        return pictures

    @torch.no_grad()
    def _draw(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample]) -> Tensor:
        """Pictures [B, 64, 64, 3] in 0…1 of the batch's pairs."""
        drawn = [bucket[position] for _, position in batch]
        noise = torch.stack([_noise(sample.seed) for sample in drawn])
        rows = [sample.prompt for sample in drawn]
        prompt = (self._encoded[0][rows], self._encoded[1][rows])
        velocity = self._velocity(prompt, vectors[[candidate for candidate, _ in batch]])
        latents = sample(velocity, noise, self.setting.steps)
        decoded = self._autoencoder.decode(latents.to(memory_format=torch.channels_last))
        pictures: Tensor = decoded.clamp(0, 1).permute(0, 2, 3, 1).contiguous()
        return pictures

    def _velocity(self, prompt: Encoded, vectors: Floats) -> Velocity:
        """The velocity of rows that have a vector each."""
        expanded, weighed = self.space.expand(vectors)
        gains = torch.as_tensor(expanded, dtype=torch.float32)
        weights = None if weighed is None else torch.as_tensor(weighed, dtype=torch.float32)
        guidance = self.space.guidance
        if guidance is None:
            seen = guided(self._dit, prompt, self.setting.cfg, self._negative)
            parts = [seen] * self.space.members
        else:
            context, pooled = (
                negative.expand_as(part)
                for negative, part in zip(self._negative, prompt, strict=True)
            )
            parts = [guided(self._dit, prompt), guided(self._dit, (context, pooled))]

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            members = []
            for part, scales in zip(parts, gains.unbind(1), strict=True):
                with self._taps.scaled(scales):
                    members.append(part(x, sigma))
            if weights is None:
                return members[0]
            nothing = torch.zeros_like(x)
            if guidance is None:
                return combine(nothing, members, weights)
            return combine_guidance(nothing, members[0], members[1], weights, guidance.rescale)

        return velocity


def _noise(seed: int) -> Tensor:
    """An image's noise, as ComfyUI draws it from a seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(LATENT_CHANNELS, SIDE, SIDE, generator=generator)
