"""Pictures before and after, as one picture without words: a run's `before_after.png`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.uint8]


def before_and_after(before: Pictures, after: Pictures) -> Pictures:
    """Two rows of n pictures [n, H, W, 3], the plain model's above: [2 H + gap, n W + gaps, 3]."""
    rows = [np.concatenate(list(_spaced(pictures, axis=1)), axis=1) for pictures in (before, after)]
    return np.concatenate(list(_spaced(np.stack(rows), axis=0)), axis=0)


def _spaced(pictures: Pictures, axis: int) -> Sequence[Pictures]:
    """Pictures with a white gap of a thirty-second of their side between them."""
    gap_shape = list(pictures[0].shape)
    gap_shape[axis] = max(2, pictures[0].shape[0] // 32)
    gap: Pictures = np.full(gap_shape, 255, np.uint8)
    spaced: list[Pictures] = []
    for picture in pictures:
        spaced += [gap, picture] if spaced else [picture]
    return spaced
