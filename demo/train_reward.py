"""Train the demo's reward network on clean, restored and spoilt pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .autoencoder import Autoencoder
from .render import coverage, render
from .reward import GRID, MOST_OBJECTS, Detector
from .scenes import (
    BACKGROUNDS,
    COLOURS,
    IMAGE_SIZE,
    SHAPES,
    SIZES,
    Scene,
    sample_description,
    sample_scene,
)
from .training import Recipe, channels_last, train, write

RECIPE = Recipe(steps=4000, batch=48, learning_rate=2e-3, ema=0.995, decay_from=0.3)
_RESTORED = 12_288
"""Pictures that went through the autoencoder, a quarter of each batch."""
_MORPHED = 0.25
"""Share of objects drawn halfway between two shapes, so that 'half a star' scores in between."""
_CLEAN_NOISE = 0.15
"""Latent noise (standard deviation) up to which a restored picture still counts as good."""


def train_reward(
    autoencoder: Autoencoder, folder: Path, seed: int, device: torch.device
) -> Detector:
    """Train (or finish training) and return the detector."""
    pool = _restored_pool(autoencoder, folder, seed + 2)
    torch.manual_seed(seed + 2)
    detector = channels_last(Detector().to(device))

    def loss(step: int) -> Tensor:
        pictures, targets = _batch(pool, seed + 2, step)
        with torch.autocast(device.type, torch.bfloat16):
            reading = detector(pictures.to(device, memory_format=torch.channels_last))
        at = {key: value.to(device) for key, value in targets.items()}
        cells = at["centre"] > 0.99
        return torch.stack(
            [
                _focal(reading.centre, at["centre"]),
                _cells(reading.colour, at["colour"], cells),
                _cells(reading.shape, at["shape"], cells),
                _cells(reading.size, at["size"], cells),
                0.3 * F.cross_entropy(reading.background, at["background"]),
                F.cross_entropy(reading.count, at["count"]),
                F.binary_cross_entropy_with_logits(reading.quality, at["quality"]),
            ]
        ).sum()

    train("reward", detector, loss, RECIPE, folder)
    return detector


def _focal(logits: Tensor, target: Tensor) -> Tensor:
    """Centre heat map with soft surroundings, as in CenterNet (eq. 1 there)."""
    p = logits.sigmoid()
    positive = target > 0.99
    hit = (1 - p).square() * F.logsigmoid(logits) * positive
    miss = (1 - target) ** 4 * p.square() * F.logsigmoid(-logits) * ~positive
    return -(hit.sum() + miss.sum()) / positive.sum().clamp(min=1)


def _cells(logits: Tensor, target: Tensor, cells: Tensor) -> Tensor:
    """Cross entropy with soft classes [B, C, 16, 16] in the cells that hold a centre."""
    entropy = -(target * logits.log_softmax(1)).sum(1)
    return (entropy * cells).sum() / cells.sum().clamp(min=1)


def _targets(scene: Scene, shapes: list[tuple[str, float]]) -> dict[str, Tensor]:
    """What the detector should read; `shapes` holds each object's second shape and its share."""
    centre = torch.zeros(GRID, GRID)
    colour = torch.zeros(len(COLOURS), GRID, GRID)
    shape = torch.zeros(len(SHAPES), GRID, GRID)
    size = torch.zeros(len(SIZES), GRID, GRID)
    cell = IMAGE_SIZE / GRID
    axis = torch.arange(GRID) + 0.5
    for thing, (other, share) in zip(scene.things, shapes, strict=True):
        x, y = thing.x / cell, thing.y / cell
        near = torch.exp(-((axis[None] - x) ** 2 + (axis[:, None] - y) ** 2) / 1.5)
        row, column = int(y), int(x)
        centre = torch.maximum(centre, near.clamp(max=0.98))
        centre[row, column] = 1.0
        colour[list(COLOURS).index(thing.colour), row, column] = 1.0
        shape[SHAPES.index(thing.shape), row, column] += 1 - share
        shape[SHAPES.index(other), row, column] += share
        size[list(SIZES).index(thing.size), row, column] = 1.0
    return {
        "centre": centre,
        "colour": colour,
        "shape": shape,
        "size": size,
        "background": torch.tensor(list(BACKGROUNDS).index(scene.background)),
        "count": torch.tensor(min(len(scene.things), MOST_OBJECTS)),
        "quality": torch.tensor(1.0),
    }


def _draw(
    rng: np.random.Generator, morphed: float
) -> tuple[NDArray[np.float32], dict[str, Tensor]]:
    """A picture [64, 64, 3] in 0…1 and its targets; some objects are between two shapes."""
    scene = sample_scene(sample_description(rng), rng)
    picture = np.empty((IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.float32)
    picture[:] = BACKGROUNDS[scene.background]
    shapes: list[tuple[str, float]] = []
    for thing in scene.things:
        other, share = thing.shape, 0.0
        if rng.random() < morphed:
            other, share = str(rng.choice(SHAPES)), float(rng.uniform(0.1, 0.9))
        alpha = (1 - share) * coverage(thing.shape, thing.x, thing.y, thing.radius)
        alpha = alpha + share * coverage(other, thing.x, thing.y, thing.radius)
        picture += alpha[..., None] * (np.array(COLOURS[thing.colour], np.float32) - picture)
        shapes.append((other, share if other != thing.shape else 0.0))
    targets = _targets(scene, shapes)
    if any(0.15 < share < 0.85 for _, share in shapes):
        targets["quality"] = torch.tensor(0.0)
    return picture / np.float32(255), targets


def _spoil(picture: Tensor, rng: np.random.Generator) -> Tensor:
    """Blur, add noise or pale a picture [3, 64, 64]."""
    kind = rng.integers(3)
    if kind == 0:
        width = int(rng.choice((3, 5)))
        return F.avg_pool2d(
            F.pad(picture[None], [width // 2] * 4, mode="replicate"), width, stride=1
        )[0]
    if kind == 1:
        grain = rng.normal(0, rng.uniform(0.05, 0.2), picture.shape)
        return (picture + torch.from_numpy(grain).float()).clamp(0, 1)
    return picture + float(rng.uniform(0.2, 0.5)) * (picture.mean((1, 2), keepdim=True) - picture)


def _batch(pool: dict[str, Tensor], seed: int, step: int) -> tuple[Tensor, dict[str, Tensor]]:
    """A quarter restored, the rest drawn (some morphed, a quarter of them spoilt)."""
    rng = np.random.default_rng((seed, step))
    pictures: list[Tensor] = []
    targets: list[dict[str, Tensor]] = []
    for index in range(RECIPE.batch):
        if index % 4 == 0:
            row = int(rng.integers(len(pool["pictures"])))
            pictures.append(pool["pictures"][row].float() / 255)
            targets.append({key: pool[key][row] for key in pool if key != "pictures"})
            continue
        drawn, target = _draw(rng, _MORPHED)
        picture = torch.from_numpy(drawn).permute(2, 0, 1)
        if rng.random() < 0.25:
            picture, target["quality"] = _spoil(picture, rng), torch.tensor(0.0)
        pictures.append(picture)
        targets.append(target)
    joined = {key: torch.stack([target[key] for target in targets]) for key in targets[0]}
    return torch.stack(pictures), joined


def _restored_pool(autoencoder: Autoencoder, folder: Path, seed: int) -> dict[str, Tensor]:
    """Decoded pictures [N, 3, 64, 64] (uint8) with latent noise of 0…0.6, and their targets."""
    file = folder / "restored.pt"
    if not file.exists():
        device = next(autoencoder.parameters()).device
        rng = np.random.default_rng(seed)
        noise = torch.Generator().manual_seed(seed)
        pictures: list[Tensor] = []
        targets: list[dict[str, Tensor]] = []
        for _ in range(_RESTORED // 64):
            scenes = [sample_scene(sample_description(rng), rng) for _ in range(64)]
            drawn = torch.from_numpy(np.stack([render(scene) for scene in scenes]))
            batch = drawn.permute(0, 3, 1, 2).to(device) / 255
            batch = batch.contiguous(memory_format=torch.channels_last)
            spread = torch.from_numpy(rng.choice((0.0, 0.1, 0.3, 0.6), 64)).float()
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
                latents = autoencoder.encode(batch).float()
                grain = torch.randn(latents.shape, generator=noise) * spread[:, None, None, None]
                restored = autoencoder.decode(latents + grain.to(device))
            pictures.append((restored.float().clamp(0, 1) * 255).round().byte().cpu())
            for scene, deviation in zip(scenes, spread.tolist(), strict=True):
                target = _targets(scene, [(thing.shape, 0.0) for thing in scene.things])
                target["quality"] = torch.tensor(float(deviation <= _CLEAN_NOISE))
                targets.append(target)
        pool = {key: torch.stack([target[key] for target in targets]) for key in targets[0]}
        write(file, {"pictures": torch.cat(pictures), **pool})
    stored: dict[str, Tensor] = torch.load(file)
    return stored
