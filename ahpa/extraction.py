"""What a training of a whole model reads of its pictures, from disk: latents, features to align to.

Both are made once, in `feature_cache.py`'s shards, and can be interrupted: what is there is not
made again. `latents` holds the VAE's own, before any scaling; each choice of features has a folder
beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from .autoencoder import VAE, Scaling
from .feature_cache import CacheKey, FeatureCache, make_cache
from .features import FeatureReader, on_grid
from .levels import Level, chosen_levels, read_levels
from .methods import DEEPEST, LATENTS, LEVELS, VISION, method_of, used_levels
from .picture_folder import Pictures
from .projection import Projection
from .recipe import Recipe
from .targets import Reader, cached_levels, encoder_mark, spread
from .training import Features

Progress = Callable[[int, int], None]
"""(pictures done, pictures of all)."""
_MEASURED = 256  # pictures that a scale is measured on
_SHARD = 1024  # latents in a file


class VisionEncoder(Protocol):
    """An image encoder to be aligned to, as REPA is."""

    mark: str  # of its weights

    def read(self, pictures: Tensor, grid: tuple[int, int]) -> list[Tensor]:
        """One level: its tokens of pictures in 0…1 on this grid, [B, rows * columns, C]."""
        ...


class CachedLatents:
    """Latents [P, C, H, W] as the model sees them, read when they are asked for."""

    def __init__(self, cache: FeatureCache, shape: Sequence[int], scaling: Scaling) -> None:
        """`shape` is [C, H, W]."""
        self._cache, self.scaling = cache, scaling
        self.shape = torch.Size((len(cache), *shape))

    def __len__(self) -> int:
        return len(self._cache)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Rows [B] → [B, C, H, W] in float32."""
        cells = self._cache[rows][:, 0].transpose(1, 2)
        latents = cells.reshape(len(rows), *self.shape[1:])
        return (latents - self.scaling.shift) * self.scaling.scale

    def scaled(self, scaling: Scaling | None) -> CachedLatents:
        """The same with this scaling of the VAE's own; None gives a sample unit variance.

        Raises ValueError for latents that are all alike.
        """
        if scaling is None:
            own = CachedLatents(self._cache, self.shape[1:], Scaling(1.0))
            sample = own[torch.tensor(spread(len(self), _MEASURED))].double()
            deviation = float(sample.std())
            if not deviation > 0:
                raise ValueError("The latents are all alike: use more and varied pictures.")
            # Rounded, so that it can be given again by hand.
            scaling = Scaling(round(1 / deviation, 5), round(float(sample.mean()), 5))
        return CachedLatents(self._cache, self.shape[1:], scaling)


def cached_latents(
    folder: Path, vae: VAE, pictures: Pictures, batch: int, progress: Progress
) -> CachedLatents:
    """Of all pictures, made in `folder`/latents where they are not; not scaled yet.

    Raises FeatureCacheError where the folder holds those of another VAE or of other pictures, and
    ValueError for a crop that the VAE does not divide.
    """
    if pictures.size % vae.factor:
        raise ValueError(
            f"The crop has {pictures.size} pixels a side, and the VAE makes pictures {vae.factor} "
            f"times smaller: give a --size that is a multiple of {vae.factor}."
        )
    side = pictures.size // vae.factor
    key = CacheKey(encoder_mark(vae.encoder, ()), pictures.marks, (), (side, side), vae.channels)
    count, device = len(pictures.marks), _device(vae)

    def batches(first: int) -> Iterator[list[Tensor]]:
        for start in range(first, count, batch):
            numbers = range(start, min(count, start + batch))
            with torch.no_grad():
                latents = vae.encode(pictures.crops(numbers).to(device))
            yield [latents.float().cpu().flatten(2).transpose(1, 2)]

    # As they are: the mean is 0, and each channel its own direction.
    as_is = Projection(torch.zeros(vae.channels), torch.eye(vae.channels))
    cache = make_cache(folder / "latents", key, batches, lambda: [as_is], _SHARD, progress)
    return CachedLatents(cache, (vae.channels, side, side), Scaling(1.0))


def cached_features(
    folder: Path,
    recipe: Recipe,
    vae: VAE,
    vision: VisionEncoder | None,
    pictures: Pictures,
    grid: tuple[int, int],
    batch: int,
    progress: Progress,
) -> tuple[tuple[Level, ...], Features | None]:
    """The levels that the recipe's method reads, and the features of all pictures.

    Raises ValueError in one sentence for a VAE or image encoder that does not serve.
    """
    target = method_of(recipe.method).target
    levels: tuple[Level, ...] = ()
    reader: Reader
    if target in (LEVELS, DEEPEST):
        levels = used_levels(recipe.method, chosen_levels(read_levels(vae.encoder), recipe.levels))
        reader, mark = FeatureReader(vae.encoder, levels, vae.encode), encoder_mark(vae.encoder, ())
    elif target == LATENTS:
        reader, mark = _LatentReader(vae), encoder_mark(vae.encoder, ())
    elif target == VISION:
        if vision is None:
            raise ValueError(
                "The method repa aligns to an image encoder: give one with --vision, or choose "
                "another method."
            )
        reader, mark = vision, vision.mark
    else:
        return (), None
    names = tuple(level.module for level in levels) or (target,)
    key = CacheKey(mark, pictures.marks, names, grid, recipe.width)
    told = json.dumps([names, grid, recipe.width]).encode()
    place = folder / f"{target}-{hashlib.sha256(told).hexdigest()[:8]}"
    device = _device(vae)

    def crops(numbers: Sequence[int]) -> Tensor:
        return pictures.crops(numbers).to(device)

    cache = cached_levels(place, key, reader, crops, batch, progress)
    return levels, cache.__getitem__


class _LatentReader:
    """The VAE's latents as a level."""

    def __init__(self, vae: VAE) -> None:
        self._vae = vae

    @torch.no_grad()
    def read(self, pictures: Tensor, grid: tuple[int, int]) -> list[Tensor]:
        """[B, rows * columns, C]."""
        return [on_grid(self._vae.encode(pictures), grid)]


def _device(vae: VAE) -> torch.device:
    return next(vae.module.parameters()).device
