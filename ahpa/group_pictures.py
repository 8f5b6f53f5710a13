"""What a group of an encoder's levels holds, as pictures: the paper's Figure 4.

A group's levels are put side by side, each with the same total variance, and projected onto the
three directions in which the pictures differ most; these are red, green and blue. (The paper
averages a group's levels. Those of the shallow group differ in width, so that there is no average.)
One projection serves all pictures: a colour means the same in each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .features import FeatureReader
from .levels import GROUPS, Level
from .projection import Moments

MOST_CELLS = 64
"""Of a picture's side: more are not seen in a small picture."""
_SPAN = 2.5  # standard deviations on either side of the mean, from black to full


@dataclass(frozen=True)
class GroupPictures:
    """One group's, [P, rows, columns, 3] in 0…1; `explained` is the three directions' variance as a
    share of all, 0…1."""

    group: str
    levels: tuple[Level, ...]
    pictures: NDArray[np.float32]
    explained: float

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "levels": [level.module for level in self.levels],
            "cells": list(self.pictures.shape[1:3]),
            "explained": round(self.explained, 4),
        }


def read_groups(
    encoder: nn.Module,
    levels: Sequence[Level],
    encode: Callable[[Tensor], Any],
    pictures: Sequence[Tensor],
    size: tuple[int, int],
) -> Iterator[GroupPictures]:
    """Shallow, middle and deep, as far as there are such levels, from the picture to the latent.

    `pictures` are what `encode` takes, each a batch of one; `size` is their height and width in
    pixels. Raises ValueError where pictures are all of one colour.
    """
    for group in GROUPS:
        chosen = tuple(level for level in levels if level.group == group)
        if not chosen:
            continue
        # On the grid of the group's last stage.
        rows, columns = (max(1, side // 2 ** chosen[-1].stage) for side in size)
        shrink = max(1, max(rows, columns) / MOST_CELLS)
        grid = max(1, round(rows / shrink)), max(1, round(columns / shrink))
        reader = FeatureReader(encoder, chosen, encode)
        found = [[level.cpu() for level in reader.read(picture, grid)] for picture in pictures]
        together = [torch.cat(one) for one in zip(*found, strict=True)]
        colours, explained = principal_colours(together)
        shown = colours.unflatten(1, grid).numpy()
        yield GroupPictures(group, chosen, shown, explained)


def principal_colours(levels: Sequence[Tensor]) -> tuple[Tensor, float]:
    """Levels, each [P, N, C], of any widths → colours [P, N, 3] in 0…1, and the share explained.

    Directions are ordered by variance, and each points to where its largest component is positive:
    equal features have equal colours. Raises ValueError for features that are all alike.
    """
    scaled = [_scaled(level) for level in levels]
    moments = Moments(sum(level.shape[-1] for level in scaled))
    for rows in zip(*scaled, strict=True):  # a picture at a time: in float64 they are large
        moments.add(torch.cat(rows, dim=-1))
    projection = moments.projection(3)
    # A direction is as long as 1 / its deviation.
    lengths = projection.directions.double().square().sum(dim=0)
    kept = torch.where(lengths > 0, 1 / lengths.clamp_min(1e-300), 0.0).sum()
    colours = torch.stack(
        [projection(torch.cat(rows, dim=-1)) for rows in zip(*scaled, strict=True)]
    )
    return (0.5 + colours / (2 * _SPAN)).clamp(0, 1), min(1.0, float(kept) / len(scaled))


def _scaled(level: Tensor) -> Tensor:
    """[P, N, C] with mean 0 and a total variance of 1 (0 where there is none)."""
    flat = level.float().flatten(0, 1)
    centred = level.float() - flat.mean(dim=0)
    return centred / centred.square().sum(dim=-1).mean().sqrt().clamp_min(1e-12)
