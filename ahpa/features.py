"""Features of a frozen VAE encoder's levels, on the token grid of the DiT that is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .levels import Level


class FeatureReader:
    """Reads the levels of one encoder while it encodes.

    `encode` is whatever makes `encoder` run on pictures, such as a VAE's own encoding with its
    scaling and tiling. Nothing is left on the encoder afterwards.
    """

    def __init__(
        self, encoder: nn.Module, levels: Sequence[Level], encode: Callable[[Tensor], Any]
    ) -> None:
        self._modules = [encoder.get_submodule(level.module) for level in levels]
        self._levels = tuple(levels)
        self._encode = encode

    @torch.no_grad()
    def read(self, pictures: Tensor, grid: tuple[int, int]) -> list[Tensor]:
        """Each level's features [B, rows * columns, C], float32, of pictures [B, ...].

        C is the level's own. A grid coarser than a level is the mean of what lies in each cell, a
        finer one is interpolated. Raises RuntimeError where the encoder did not run, or ran more
        than once, as with tiles.
        """
        found: dict[int, Tensor] = {}

        def keep(place: int) -> Callable[..., None]:
            def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
                if place in found:
                    raise RuntimeError(
                        "The VAE encoded the pictures in tiles or parts, where features of one "
                        "picture cannot be put together: use smaller crops or batches."
                    )
                found[place] = on_grid(output, grid)

            return hook

        handles = [
            module.register_forward_hook(keep(place)) for place, module in enumerate(self._modules)
        ]
        try:
            self._encode(pictures)
        finally:
            for handle in handles:
                handle.remove()
        if len(found) != len(self._modules):
            raise RuntimeError("The VAE encoded the pictures without running its encoder.")
        return [found[place] for place in range(len(self._modules))]


def on_grid(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """[B, C, H, W], or [B, C, 1, H, W] of one frame → [B, rows * columns, C] in float32.

    Raises ValueError for several frames.
    """
    features = features.float()
    if features.ndim == 5:
        if features.shape[2] != 1:
            raise ValueError(
                f"The features are of {features.shape[2]} frames: AHPA aligns to single pictures."
            )
        features = features[:, :, 0]
    rows, columns = grid
    if features.shape[2] >= rows and features.shape[3] >= columns:
        features = F.adaptive_avg_pool2d(features, grid)
    else:
        features = F.interpolate(features, grid, mode="bilinear", align_corners=False)
    return features.flatten(2).transpose(1, 2)
