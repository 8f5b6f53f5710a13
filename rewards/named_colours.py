"""Which of the eleven basic colours a pixel has: the nearest one in CIELAB."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from .demands import COLOURS

_RGB = {
    "black": (15, 15, 15), "white": (245, 245, 245), "gray": (128, 128, 128), "red": (210, 25, 30),
    "orange": (250, 130, 20), "yellow": (245, 220, 40), "green": (40, 150, 50),
    "blue": (35, 70, 210), "purple": (125, 45, 165), "pink": (250, 150, 190),
    "brown": (115, 70, 35),
}  # fmt: skip
_TO_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
_WHITE = (0.9505, 1.0, 1.089)  # D65


def share(picture: Tensor, colour: str) -> float:
    """How much of a picture [H, W, 3] in 0..1 is of that colour, 0 to 1; 0 of an empty one."""
    pixels = picture.reshape(-1, 3).float()
    if len(pixels) == 0:
        return 0.0
    nearest = torch.cdist(_lab(pixels), _prototypes().to(pixels.device)).argmin(1)
    return float((nearest == COLOURS.index(colour)).float().mean())


@cache
def _prototypes() -> Tensor:
    return _lab(torch.tensor([_RGB[name] for name in COLOURS]) / 255.0)


def _lab(rgb: Tensor) -> Tensor:
    """sRGB [N, 3] in 0..1 → CIELAB [N, 3]."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix, white = torch.tensor(_TO_XYZ).to(rgb), torch.tensor(_WHITE).to(rgb)
    xyz = linear @ matrix.T / white
    f = torch.where(xyz > 0.008856, xyz.clamp(min=1e-9) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = f.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)
