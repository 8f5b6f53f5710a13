"""Whitening and a fixed PCA: what makes levels of an encoder comparable, and is never trained.

A trainable projection on the target's side would collapse, because a constant is the easiest target
of all. So each level is projected once and for all onto its own principal directions, scaled to
unit variance, before training begins.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_FLOOR = 1e-6
"""Of the largest variance: directions below it are rounding errors and get no weight."""


@dataclass(frozen=True)
class Projection:
    """One level's: mean [C], directions [C, D], as float32. D ≤ C columns hold, the rest are 0."""

    mean: Tensor
    directions: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """[..., C] → [..., D], with mean 0 and unit variance over what it was fitted to."""
        return (features - self.mean.to(features)) @ self.directions.to(features)


class Moments:
    """Mean and covariance of features that arrive batch by batch, in float64."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.sum = torch.zeros(channels, dtype=torch.float64)
        self.products = torch.zeros(channels, channels, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Take features [..., C] in."""
        rows = features.reshape(-1, features.shape[-1]).cpu().double()
        self.count += len(rows)
        self.sum += rows.sum(dim=0)
        self.products += rows.T @ rows

    def projection(self, width: int) -> Projection:
        """Onto the `width` directions of most variance, each scaled to unit variance.

        Where the level has fewer directions than that, the rest of the columns are 0. Raises
        ValueError for features that are all alike.
        """
        mean = self.sum / max(1, self.count)
        covariance = self.products / max(1, self.count) - torch.outer(mean, mean)
        variances, vectors = torch.linalg.eigh(covariance)
        variances, vectors = variances.flip(0)[:width], vectors.flip(1)[:, :width]
        if self.count < 2 or not variances[0] > 0:
            raise ValueError("The features of a level are all alike: use more and varied pictures.")
        kept = variances > _FLOOR * variances[0]
        scale = torch.where(kept, variances.clamp_min(1e-300).rsqrt(), 0.0)
        # A direction's sign is arbitrary: its largest component is positive.
        largest = vectors.abs().argmax(dim=0)
        signs = vectors[largest, torch.arange(vectors.shape[1])].sign()
        directions = torch.zeros(len(mean), width, dtype=torch.float64)
        directions[:, : vectors.shape[1]] = vectors * signs * scale
        return Projection(mean.float(), directions.float())
