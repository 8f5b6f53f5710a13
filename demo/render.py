"""Draw a `Scene` as pixels, with anti-aliased edges from signed distances."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .scenes import BACKGROUNDS, COLOURS, IMAGE_SIZE, Scene

Array = NDArray[np.float32]

_AXIS = np.arange(IMAGE_SIZE, dtype=np.float32) + 0.5


def render(scene: Scene) -> NDArray[np.uint8]:
    """Return the picture of `scene`, [64, 64, 3] in 0…255."""
    image = np.empty((IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.float32)
    image[:] = BACKGROUNDS[scene.background]
    for thing in scene.things:
        alpha = coverage(thing.shape, thing.x, thing.y, thing.radius)[..., None]
        image += alpha * (np.asarray(COLOURS[thing.colour], dtype=np.float32) - image)
    return np.asarray(np.rint(image), dtype=np.uint8)


def coverage(shape: str, x: float, y: float, radius: float) -> Array:
    """How much of each pixel the shape covers, [64, 64] in 0…1; centre and radius in pixels."""
    dx, dy = _AXIS[None, :] - np.float32(x), _AXIS[:, None] - np.float32(y)
    return np.asarray(np.clip(0.5 - _distance(shape, dx, dy, np.float32(radius)), 0.0, 1.0))


def _distance(shape: str, dx: Array, dy: Array, r: np.float32) -> Array:
    """Signed distance to the outline in pixels, negative inside."""
    if shape == "circle":
        return np.asarray(np.hypot(dx, dy) - r)
    if shape == "ring":
        return np.asarray(np.abs(np.hypot(dx, dy) - 0.76 * r) - 0.24 * r)
    if shape == "square":
        side = np.float32(0.9) * r
        return np.asarray(np.maximum(np.abs(dx), np.abs(dy)) - side)
    if shape == "cross":
        arm, wide = 0.97 * r, 0.32 * r
        upright = np.maximum(np.abs(dx) - wide, np.abs(dy) - arm)
        lying = np.maximum(np.abs(dx) - arm, np.abs(dy) - wide)
        return np.asarray(np.minimum(upright, lying))
    if shape == "triangle":
        # Base at the bottom; the slanted sides meet at the top of the bounding box.
        height, half = 1.9 * r, r
        top = -0.95 * r
        slope = np.hypot(height, half)
        slanted = (np.abs(dx) * height - (dy - top) * half) / slope
        return np.asarray(np.maximum(slanted, np.abs(dy) - 0.95 * r))
    if shape == "star":
        return _star(dx, dy, r)
    raise ValueError(f"unknown shape {shape!r}")


def _star(dx: Array, dy: Array, r: np.float32) -> Array:
    """Five points, the first upwards, inner radius 0.45 of the outer."""
    sector = np.float32(np.pi / 5)
    angle = np.abs((np.arctan2(dx, -dy) + sector) % (2 * sector) - sector)
    length = np.hypot(dx, dy)
    px, py = length * np.sin(angle), length * np.cos(angle)
    inner = 0.45 * r
    tip = np.array((0.0, r), dtype=np.float32)
    notch = np.array((inner * np.sin(sector), inner * np.cos(sector)), dtype=np.float32)
    edge = notch - tip
    normal = np.array((-edge[1], edge[0]), dtype=np.float32) / np.hypot(*edge)
    return np.asarray((px - tip[0]) * normal[0] + (py - tip[1]) * normal[1])
