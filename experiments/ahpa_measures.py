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


def flow_loss(subject: Subject, count: int) -> float:
    """Validation loss of a subject whose pictures are those held out, on `count` draws."""
    return validation_loss(subject, torch.arange(len(subject.latents)), 0, count, _BATCH)


@torch.no_grad()
def judge(
    latents: Tensor, held_out: Pictures, autoencoder: Autoencoder, detector: Detector, real: Tensor
) -> dict[str, float]:
    """`frechet` and `facts` of latents that were drawn for the first held-out prompts.

    The distance is to `real`, the held-out pictures' own latents, decoded as the drawn ones are: an
    autoencoder's blur is no fault of a model.
    """
    drawn, true = (_pictures(part, autoencoder) for part in (latents, real))
    pixels = (drawn * 255).round().byte().permute(0, 2, 3, 1).numpy()
    facts = [check(p, d).facts for p, d in zip(pixels, held_out.descriptions, strict=False)]
    return {
        "frechet": frechet(_features(detector, drawn), _features(detector, true)),
        "facts": float(np.mean(facts)),
    }


def reference(
    latents: Tensor, held_out: Pictures, autoencoder: Autoencoder, detector: Detector, count: int
) -> dict[str, float]:
    """What a perfect model would have, of held-out latents: `frechet` between two halves of the
    pictures, `count` in each; `facts`; and `chance`, the facts beside other pictures' prompts.
    """
    own, others = latents[:count], latents[count : 2 * count]
    found = judge(own, held_out, autoencoder, detector, others)
    shuffled = judge(own.roll(1, 0), held_out, autoencoder, detector, others)
    return {**found, "chance": shuffled["facts"]}


def _pictures(latents: Tensor, autoencoder: Autoencoder) -> Tensor:
    """Decoded, in 0…1, as small as the demo's detector and checker want them."""
    decoded = torch.cat([autoencoder.decode(part) for part in latents.split(_BATCH)]).clamp(0, 1)
    return F.interpolate(decoded, (IMAGE_SIZE, IMAGE_SIZE), mode="area")


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
