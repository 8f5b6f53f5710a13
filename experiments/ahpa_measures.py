"""How good a model of AHPA's comparison is: validation loss, Fréchet distance, facts shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import linalg
from torch import Tensor, nn

from ..ahpa.sit import SiT
from ..ahpa.training import validation_loss
from ..demo.checker import check
from ..demo.reward import Detector
from ..demo.scenes import IMAGE_SIZE
from ..demo.text_encoder import TextEncoder, token_rows
from ..training.draws import generator, noise
from .ahpa_pictures import Autoencoder, Pictures

STEPS = 6
"""Euler steps of a sample, at cfg 1."""
_BATCH = 16


class Subject:
    """A SiT, trained as a whole, told the tokens of the demo's frozen text encoder, end to end."""

    device = torch.device("cpu")

    def __init__(
        self, model: SiT, latents: Tensor, prompts: Sequence[str], text_encoder: TextEncoder
    ) -> None:
        self.model: nn.Module = model
        self.latents = latents
        side = latents.shape[-1] // model.config.patch
        self.grid = (side, side)
        self.parameters = dict(model.named_parameters())
        with torch.no_grad():
            self._prompts = text_encoder(token_rows([*prompts, ""]))[0].flatten(1)

    def velocity(self, x: Tensor, t: Tensor, rows: Tensor, empty: Tensor) -> Tensor:
        """Row N is the empty prompt."""
        told = torch.where(empty, len(self._prompts) - 1, rows)
        out: Tensor = self.model(x, t, self._prompts[told])
        return out

    def groups(self, rows: Tensor, empty: Tensor) -> Sequence[Tensor]:
        """All prompts are of one length."""
        return (torch.arange(len(rows)),)

    def look_up(self) -> None:
        """Nobody cancels from in here."""


@torch.no_grad()
def draw(subject: Subject, count: int, seed: int) -> Tensor:
    """Latents of the first `count` prompts, from noise of their own."""
    drawn = []
    for first in range(0, count, _BATCH):
        rows = torch.arange(first, min(count, first + _BATCH))
        shape = subject.latents.shape[1:]
        x = torch.stack([noise(shape, generator(seed, "draw", int(row))) for row in rows])
        empty = torch.zeros(len(rows), dtype=torch.bool)
        for step in range(STEPS):
            t = torch.full((len(rows),), 1 - step / STEPS)
            x = x - subject.velocity(x, t, rows, empty) / STEPS
        drawn.append(x)
    return torch.cat(drawn)


@torch.no_grad()
def measure(
    subject: Subject, held_out: Pictures, autoencoder: Autoencoder, detector: Detector, count: int
) -> dict[str, float]:
    """Of a subject whose pictures are those held out: `loss`, `frechet` and `facts`."""
    rows = torch.arange(len(subject.latents))
    loss = validation_loss(subject, rows, seed=0, count=4 * count, batch=_BATCH)
    latents = draw(subject, count, seed=1)
    return {"loss": loss, **judge(latents, held_out, autoencoder, detector)}


@torch.no_grad()
def reference(
    latents: Tensor, held_out: Pictures, autoencoder: Autoencoder, detector: Detector
) -> dict[str, float]:
    """The best and the least that a model can have: `frechet` and `facts` of the held-out pictures
    themselves through the autoencoder, and their facts beside other pictures' prompts, `chance`.
    """
    found = judge(latents, held_out, autoencoder, detector)
    others = judge(latents.roll(1, 0), held_out, autoencoder, detector)
    return {**found, "chance": others["facts"]}


def judge(
    latents: Tensor, held_out: Pictures, autoencoder: Autoencoder, detector: Detector
) -> dict[str, float]:
    """`frechet` and `facts` of pictures drawn for the first held-out prompts."""
    drawn = torch.cat([autoencoder.decode(part) for part in latents.split(_BATCH)]).clamp(0, 1)
    small = F.interpolate(drawn, (IMAGE_SIZE, IMAGE_SIZE), mode="area")
    real = held_out.batch(range(len(latents)))
    real = F.interpolate(real, (IMAGE_SIZE, IMAGE_SIZE), mode="area")
    pixels = (small * 255).round().byte().permute(0, 2, 3, 1).numpy()
    facts = [check(p, d).facts for p, d in zip(pixels, held_out.descriptions, strict=False)]
    return {
        "frechet": frechet(_features(detector, small), _features(detector, real)),
        "facts": float(np.mean(facts)),
    }


def tokens_of(detector: Detector, pictures: Pictures) -> Tensor:
    """The detector's own map [N, 256, 64] of all pictures: an image encoder, for REPA."""
    found = []
    with torch.no_grad():
        for first in range(0, len(pictures.prompts), _BATCH):
            seen = pictures.batch(range(first, min(len(pictures.prompts), first + _BATCH)))
            small = F.interpolate(seen, (IMAGE_SIZE, IMAGE_SIZE), mode="area")
            found.append(detector.body(detector.stem(2 * small - 1)).flatten(2).transpose(1, 2))
    return torch.cat(found)


def frechet(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Fréchet distance of two sets of features [N, C], taken for normal."""
    covariances = [np.cov(part, rowvar=False) for part in (first, second)]
    # The root's trace from eigenvalues of the product: no complex matrix root to clean.
    roots = np.sqrt(np.clip(linalg.eigvals(covariances[0] @ covariances[1]).real, 0, None))
    means = first.mean(axis=0) - second.mean(axis=0)
    return float(means @ means + sum(np.trace(c) for c in covariances) - 2 * roots.sum())


def _features(detector: Detector, pictures: Tensor) -> NDArray[np.float64]:
    seen = F.relu(detector.body(detector.stem(2 * pictures - 1)))
    pooled = torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], dim=1)
    return pooled.double().numpy()
