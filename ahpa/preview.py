"""Pictures of a model in training, now and then: the same captions or classes, the same noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..training.draws import generator, noise
from ..training.weights import instead
from .autoencoder import VAE, Scaling
from .subject import Subject
from .training import Trainer

PICTURES = 9
STEPS = 20
"""Euler steps of a preview, without guidance."""


@torch.no_grad()
def drawn(subject: Subject, rows: Sequence[int], steps: int, seed: int) -> Tensor:
    """Latents [R, C, H, W] for what these pictures are told, each from noise of its own."""
    shape = subject.latents.shape[1:]
    x = torch.stack([noise(shape, generator(seed, "preview", row)) for row in rows])
    x, told = x.to(subject.device), torch.tensor(list(rows))
    empty = torch.zeros(len(rows), dtype=torch.bool)
    for step in range(steps):
        t = torch.full((len(rows),), 1 - step / steps, device=subject.device)
        x = x - subject.velocity(x, t, told, empty).float() / steps
    return x


def preview(trainer: Trainer, vae: VAE, scaling: Scaling, rows: Sequence[int]) -> NDArray[np.uint8]:
    """By the averaged weights, as one picture: [side, side, 3]."""
    with instead(trainer.subject.parameters, trainer.averaged):
        latents = drawn(trainer.subject, rows, STEPS, trainer.recipe.seed)
    own = latents / scaling.scale + scaling.shift
    vae.module.to(own.device)
    with torch.no_grad():
        # One at a time: a decoder takes far more memory than the model does.
        pictures = torch.cat([vae.decode(one[None]) for one in own])
    vae.module.to("cpu")
    pixels = (pictures.float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return tiled(pixels)


def tiled(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures [N, S, S, 3] in a square of rows, with white gaps between them."""
    columns = math.ceil(len(pictures) ** 0.5)
    rows = math.ceil(len(pictures) / columns)
    side = pictures.shape[1]
    step = side + max(2, side // 32)
    sheet = np.full((rows * step - step + side, columns * step - step + side, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // columns * step, number % columns * step
        sheet[top : top + side, left : left + side] = picture
    return sheet
