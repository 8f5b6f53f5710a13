"""The demo model as a QRM's training sees it (`qrm/trainee.py`): frozen, and open to vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..calibri.taps import GainTaps
from ..calibri.vectors import Vectors
from .autoencoder import LATENT_CHANNELS
from .pictures import SIDE, DemoModels
from .text_encoder import token_rows


class Found(NamedTuple):
    """The model's guess [B, 16, 8, 8], the vectors that it had and the module's expectation [B]."""

    x0: Tensor
    vectors: Vectors | None
    quality: Tensor | None


@dataclass(frozen=True)
class Cut:
    """Which steps the module acts in: sigma above `low`, up to `high`."""

    low: float = 0.0
    high: float = 1.0


class DemoTrainee:
    """The demo at cfg 1 in `steps` equal Euler steps; satisfies `qrm.trainee.Trainee`.

    `gains` [1, T] are a preset's, which then acts in every call, the plain ones too. A module
    gets sigma [B], prompt tokens [B, 16, 64], no mask and pooled [B, 64].
    """

    def __init__(
        self,
        models: DemoModels,
        prompts: Sequence[str],
        steps: int = 4,
        gains: Tensor | None = None,
        cut: Cut = Cut(),
    ) -> None:
        self.prompts = tuple(prompts)
        self.sigmas = tuple(1 - step / steps for step in range(steps + 1))
        self.shape: tuple[int, ...] = (LATENT_CHANNELS, SIDE, SIDE)
        self.device = torch.device("cpu")
        self._models, self._gains, self._cut = models, gains, cut
        self._taps = GainTaps(models.dit, models.backbone)
        # A third faster than the usual order of axes.
        models.autoencoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.no_grad():
            self._tokens, self._pooled = models.text_encoder(token_rows(list(self.prompts)))

    def denoised(
        self, x: Tensor, sigma: Tensor, rows: Sequence[int], module: nn.Module | None
    ) -> Found:
        """x0 of latents [B, 16, 8, 8] at `sigma` [B]: x - sigma * velocity."""
        tokens, pooled = self._tokens[list(rows)], self._pooled[list(rows)]
        level = float(sigma.max())
        vectors: Vectors | None = None
        quality: Tensor | None = None
        if module is not None and self._cut.low < level <= self._cut.high:
            said: Any = module(sigma, tokens, None, pooled)
            vectors, quality = said.vectors, said.quality
        with self._taps.scaled(self._gains, vectors):
            velocity = self._models.dit(x, sigma, tokens, pooled)
        return Found(x - sigma[:, None, None, None] * velocity, vectors, quality)

    def noised(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """(1 - sigma) * latents + sigma * noise."""
        mix = sigma[:, None, None, None]
        return (1 - mix) * latents + mix * noise

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures [B, 64, 64, 3]."""
        ordered = latents.contiguous(memory_format=torch.channels_last)
        pictures = self._models.autoencoder.decode(ordered).float().clamp(0, 1)
        return pictures.permute(0, 2, 3, 1)

    def look_up(self) -> None:
        """Nobody cancels from in here."""
