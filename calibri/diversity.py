"""How much the images of one prompt differ from seed to seed: collapse is rewards' classic failure.

A search that climbs a reward may end where every seed gives nearly the same picture. Rewards judge
pictures one by one and do not see that; this does.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from .evaluation import Floats
from .selection import Interval, mean_interval

SIDE = 32
"""Pixels of the longer side at which images are compared: composition and colour, no texture."""


def diversity(images: NDArray[np.uint8]) -> Floats:
    """Mean distance [P] between the images [P, S, H, W, 3] of each prompt's S >= 2 seeds, 0..1.

    The distance of two images is the root mean square of their difference over pixels and channels
    (black to white is 1), once both are averaged over areas to at most `SIDE` pixels a side. S need
    not be equal between two calls: it is a mean over pairs of seeds.

    **Collapse** is a value far below the plain model's for the same prompts and seeds; 0 is one
    picture for every seed. Compare with the plain model and never between sets of prompts: a prompt
    of one thing on white differs less than a street. **What it cannot see:** whether the pictures
    are good; variety that is only noise or broken colours, which raises it; details below a
    thirty-second of the picture, such as other faces in one pose; and sameness across *prompts*,
    since seeds are compared within each. A shift of the whole picture counts as much as another
    motif.

    Raises ValueError for another shape and for fewer than two seeds.
    """
    if images.ndim != 5 or images.shape[-1] != 3 or images.shape[1] < 2:
        raise ValueError(
            f"Diversity was asked for images of shape {images.shape}: it compares those of one "
            "prompt and needs [prompts, seeds, height, width, 3] with at least two seeds."
        )
    # Prompt by prompt: floats of all images at full size would be eight times their bytes.
    return np.concatenate([diversity_of_small(small_images(seeds)[None]) for seeds in images])


def small_images(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What `diversity` compares of images [N, H, W, 3]: [N, h, w, 3] in 0..1, h and w <= `SIDE`."""
    height, width = images.shape[1:3]
    scale = min(1.0, SIDE / max(height, width))
    rows = _averages(height, max(1, round(height * scale)))
    columns = _averages(width, max(1, round(width * scale)))
    small = [np.einsum("hH,HWc,wW->hwc", rows, i / 255.0, columns, optimize=True) for i in images]
    return np.stack(small).astype(np.float32)


def diversity_of_small(images: NDArray[np.float32]) -> Floats:
    """`diversity` [P] of `small_images` [P, S, h, w, 3], for whom all images at once are too many.

    Raises ValueError for fewer than two seeds.
    """
    if images.shape[1] < 2:
        raise ValueError("Diversity compares the images of one prompt and needs two seeds.")
    pairs = list(combinations(range(images.shape[1]), 2))
    wide = np.ascontiguousarray(images, dtype=np.float64)  # sums depend on the order in memory
    apart = [np.sqrt(np.mean((wide[:, a] - wide[:, b]) ** 2, axis=(1, 2, 3))) for a, b in pairs]
    return np.asarray(np.mean(apart, axis=0), dtype=np.float64)


def diversity_ratio(of: Floats, plain: Floats) -> Interval | None:
    """Mean diversity `of` a preset [P] over that of the plain model [P] on the same prompts.

    The 95 % interval is that of the mean of what each prompt adds to the ratio (its linearisation),
    so it is paired; below 1 the seeds' images are more alike than the plain model's. None where the
    plain model's do not differ at all.
    """
    if plain.mean() <= 0:
        return None
    ratio = float(of.mean() / plain.mean())
    interval = mean_interval(ratio + (of - ratio * plain) / plain.mean())
    return Interval(ratio, max(0.0, interval.low), interval.high)


def _averages(length: int, parts: int) -> Floats:
    """The matrix [parts, length] that averages over `parts` equal areas, pixels cut where they lie
    on an edge."""
    edges = np.arange(parts + 1) * (length / parts)
    pixels = np.arange(length)
    ends = np.minimum(edges[1:, None], pixels + 1)
    overlap = np.clip(ends - np.maximum(edges[:-1, None], pixels), 0.0, None)
    return np.asarray(overlap * (parts / length), dtype=np.float64)
