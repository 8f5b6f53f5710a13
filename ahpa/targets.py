"""Features to align to, of all pictures of a training: levels of a VAE, its latents, an encoder's.

Each is whitened and projected once (`projection.py`), on a sample of the pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from .feature_cache import CacheKey, FeatureCache, make_cache
from .features import on_grid
from .levels import Level
from .projection import Moments, Projection

FITTED = 256
"""Pictures that the directions are fitted to, evenly spread over all."""

Pictures = Callable[[Sequence[int]], Tensor]
"""Numbers of pictures → what the VAE's `encode` takes, a batch of them."""


class Reader(Protocol):
    """What turns pictures into levels: `FeatureReader`, or anything alike."""

    def read(self, pictures: Tensor, grid: tuple[int, int]) -> list[Tensor]:
        """Each level's features [B, rows * columns, C] of pictures [B, ...]."""
        ...


def cached_levels(
    folder: Path,
    key: CacheKey,
    reader: Reader,
    pictures: Pictures,
    batch: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureCache:
    """The features of the reader's levels of all pictures, made in `folder` where they are not.

    `progress` is called with pictures done and their number. Raises as `make_cache` does.
    """
    count = len(key.pictures)

    def read(numbers: Sequence[int]) -> list[Tensor]:
        return [level.cpu() for level in reader.read(pictures(numbers), key.grid)]

    def batches(first: int) -> Iterator[list[Tensor]]:
        for start in range(first, count, batch):
            yield read(range(start, min(count, start + batch)))

    def projections() -> list[Projection]:
        chosen = spread(count, FITTED)
        moments: list[Moments] = []
        for start in range(0, len(chosen), batch):
            found = read(chosen[start : start + batch])
            moments = moments or [Moments(level.shape[-1]) for level in found]
            for held, level in zip(moments, found, strict=True):
                held.add(level)
        return [held.projection(key.width) for held in moments]

    return make_cache(folder, key, batches, projections, shard=64, progress=progress)


def whitened(features: Tensor, width: int) -> Tensor:
    """[P, T, C] of all pictures → one level of features [P, 1, T, width], in half precision.

    Raises ValueError for features that are all alike.
    """
    moments = Moments(features.shape[-1])
    moments.add(features[spread(len(features), FITTED)].float())
    return moments.projection(width)(features.float()).half()[:, None]


def latent_features(latents: Tensor, grid: tuple[int, int], width: int) -> Tensor:
    """The VAE's latents [P, C, H, W] as a level: [P, 1, T, width]."""
    return whitened(on_grid(latents, grid), width)


def vision_features(tokens: Tensor, grid: tuple[int, int], width: int) -> Tensor:
    """An image encoder's tokens [P, 1 + N, C] or [P, N, C], N a square, as a level.

    Raises ValueError where N is no square: the encoder does not see a square picture.
    """
    return whitened(tokens_on_grid(tokens, grid), width)


def tokens_on_grid(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """An image encoder's tokens, as in `vision_features`, on a grid: [P, rows * columns, C]."""
    side = round((tokens.shape[1]) ** 0.5)
    if side * side != tokens.shape[1]:
        tokens = tokens[:, 1:]  # the class token comes first
        side = round(tokens.shape[1] ** 0.5)
    if side * side != tokens.shape[1]:
        raise ValueError(
            f"The image encoder gives {tokens.shape[1]} tokens, which are no square: use an "
            "encoder of square pictures such as CLIP-ViT."
        )
    plane = tokens.float().transpose(1, 2).unflatten(2, (side, side))
    return on_grid(plane, grid)


def encoder_mark(encoder: nn.Module, levels: Sequence[Level]) -> str:
    """A hash of an encoder's weights, for a cache: names, shapes, and values from all over."""
    digest = hashlib.sha256()
    for name, value in sorted(encoder.state_dict().items()):
        held = value.detach().flatten()
        sample = held[:: max(1, held.numel() // 64)][:64].to("cpu", torch.float32)
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(sample.contiguous().numpy().tobytes())
    digest.update(" ".join(level.module for level in levels).encode())
    return digest.hexdigest()[:32]


def spread(count: int, most: int) -> list[int]:
    """Up to `most` of `count` numbers, evenly spread."""
    return sorted({i * count // min(count, most) for i in range(min(count, most))})
