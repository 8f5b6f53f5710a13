"""Pictures by the demo model without ComfyUI: each from its own prompt, noise and coefficients.

From equal noise ComfyUI's sampler draws the same (tests/host), so what is found here holds there.
`evaluator.py` and `painter.py` score them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..calibri.backbones import Backbone, read_backbone
from ..calibri.ensemble import combine, combine_guidance
from ..calibri.evaluation import Sample
from ..calibri.preset_metadata import Guidance
from ..calibri.taps import GainTaps
from .autoencoder import LATENT_CHANNELS, Autoencoder
from .model import Flux
from .reward import DemoReward
from .sampler import Encoded, Velocity, guided, sample
from .text_encoder import TextEncoder, token_rows
from .weights import DIT, REWARD, TEXT_ENCODER, VAE, WEIGHTS, load_into

SIDE = 8
"""Of a latent, in cells; a picture has 64 pixels."""
MOST_ROWS = 16
"""Pictures at once: more decode slower each, since they overflow a CPU's caches."""


@dataclass(frozen=True)
class DemoModels:
    """All that turns a prompt into a scored picture, in float32 on the CPU."""

    dit: Flux
    text_encoder: TextEncoder
    autoencoder: Autoencoder
    reward: DemoReward

    @classmethod
    def load(cls, folder: Path = WEIGHTS) -> DemoModels:
        """Read the files of `weights.py`."""
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
class Layer:
    """Coefficients as they act: gains [R, M, T] of M members on T taps, for R rows or for all (1).

    `weights` [R, M] sum the members' predictions; without them there is one member and it is the
    model. With `guidance` (M = 2) the second member sees the negative prompt, here the empty one.
    """

    gains: Tensor
    weights: Tensor | None = None
    guidance: Guidance | None = None


class DemoPictures:
    """Draws the prompts it is made for; `Sample.prompt` indexes them."""

    def __init__(self, models: DemoModels, prompts: Sequence[str]) -> None:
        self.prompts = tuple(prompts)
        self._dit, self._taps = models.dit, GainTaps(models.dit, models.backbone)
        self._autoencoder = models.autoencoder
        # A third faster than the usual order of axes.
        self._autoencoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.no_grad():
            self._encoded = models.text_encoder(token_rows(list(self.prompts)))
            self._negative = models.text_encoder(token_rows([""]))

    @torch.no_grad()
    def draw(self, samples: Sequence[Sample], layer: Layer, steps: int, cfg: float = 1.0) -> Tensor:
        """Pictures [R, 64, 64, 3] in 0…1 of `samples` [R], by Euler steps of equal size.

        With a layer's guidance, its weights stand in for `cfg`.
        """
        noise = torch.stack([_noise(sample.seed) for sample in samples])
        rows = [sample.prompt for sample in samples]
        prompt = (self._encoded[0][rows], self._encoded[1][rows])
        latents = sample(self._velocity(prompt, layer, cfg), noise, steps)
        decoded = self._autoencoder.decode(latents.to(memory_format=torch.channels_last))
        pictures: Tensor = decoded.clamp(0, 1).permute(0, 2, 3, 1).contiguous()
        return pictures

    def _velocity(self, prompt: Encoded, layer: Layer, cfg: float) -> Velocity:
        weights, guidance = layer.weights, layer.guidance
        if guidance is None:
            seen = guided(self._dit, prompt, cfg, self._negative)
            parts = [seen] * layer.gains.shape[1]
        else:
            context, pooled = (
                negative.expand_as(part)
                for negative, part in zip(self._negative, prompt, strict=True)
            )
            parts = [guided(self._dit, prompt), guided(self._dit, (context, pooled))]

        def velocity(x: Tensor, sigma: Tensor) -> Tensor:
            members = []
            for part, gains in zip(parts, layer.gains.unbind(1), strict=True):
                with self._taps.scaled(gains):
                    members.append(part(x, sigma))
            if weights is None:
                return members[0]
            nothing = torch.zeros_like(x)
            if guidance is None:
                return combine(nothing, members, weights)
            return combine_guidance(nothing, members[0], members[1], weights, guidance.rescale)

        return velocity


def to_bytes(pictures: Tensor) -> Tensor:
    """Pictures in 0…1 as whole numbers in 0…255, uint8."""
    return (pictures * 255).round().byte()


def _noise(seed: int) -> Tensor:
    """An image's noise, as ComfyUI draws it from a seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(LATENT_CHANNELS, SIDE, SIDE, generator=generator)
