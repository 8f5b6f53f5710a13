"""Train the demo's autoencoder on rendered scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .autoencoder import LATENT_CHANNELS, Autoencoder, fold_normalisation
from .render import render
from .scenes import BACKGROUNDS, sample_description, sample_scene
from .training import Recipe, channels_last, train

RECIPE = Recipe(steps=3000, batch=32, learning_rate=1e-3, ema=0.995, decay_from=0.3)
_LATENT_NOISE = 0.08
"""Standard deviation of noise on the latents, so that the decoder forgives a sampler's errors."""
_OBJECT_WEIGHT = 5.0
"""Weight of an object's pixels against the background's, which are far more and far easier."""


def scene_batch(seed: int, step: int, size: int) -> tuple[Tensor, Tensor]:
    """Pictures [B, 3, 64, 64] in 0…1 and pixel weights [B, 1, 64, 64], from (seed, step) alone."""
    rng = np.random.default_rng((seed, step))
    scenes = [sample_scene(sample_description(rng), rng) for _ in range(size)]
    pictures = np.stack([render(scene) for scene in scenes])
    ground = np.array([BACKGROUNDS[scene.background] for scene in scenes])
    drawn = np.abs(pictures.astype(np.int16) - ground[:, None, None]).max(-1) > 6
    weights = np.where(drawn, _OBJECT_WEIGHT, 1.0).astype(np.float32)
    return (
        torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255,
        torch.from_numpy(weights)[:, None],
    )


class _Trained(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.autoencoder = Autoencoder()
        self.norm = nn.BatchNorm2d(LATENT_CHANNELS, affine=False, momentum=0.02)


def train_autoencoder(folder: Path, seed: int, device: torch.device) -> Autoencoder:
    """Train (or finish training) and return the autoencoder with unit-variance latents."""
    torch.manual_seed(seed)
    model = channels_last(_Trained().to(device))

    def loss(step: int) -> Tensor:
        pictures, weights = scene_batch(seed, step, RECIPE.batch)
        pictures = pictures.to(device, memory_format=torch.channels_last)
        noise = torch.Generator().manual_seed(seed * 1_000_003 + step)
        with torch.autocast(device.type, torch.bfloat16):
            latents = model.norm(model.autoencoder.encode(pictures).float())
            latents = latents + _LATENT_NOISE * torch.randn(latents.shape, generator=noise).to(
                device
            )
            restored = model.autoencoder.decode(latents)
        error = restored.float() - pictures
        return ((error.square() + 0.1 * error.abs()) * weights.to(device)).mean()

    train("autoencoder", model, loss, RECIPE, folder)
    fold_normalisation(model.autoencoder, model.norm)
    return model.autoencoder
