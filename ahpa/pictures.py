"""Files of pictures that a training learns from: opened, cropped, and what is said beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def caption_of(path: Path) -> str:
    """The text beside a picture. Raises ValueError where there is none."""
    beside = path.with_suffix(".txt")
    text = beside.read_text(encoding="utf-8", errors="replace").strip() if beside.is_file() else ""
    if not text:
        raise ValueError(
            f"The picture {path.name} has no caption: write what it shows into {beside.name} "
            "beside it."
        )
    return text


def check_file(path: Path, size: int) -> None:
    """Raise ValueError for a file that is no picture, or one smaller than the crop.

    Its pixels are not read.
    """
    try:
        with Image.open(path) as picture:
            width, height = picture.size
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f"The picture {path.name} cannot be read: {error}.") from error
    check_size(f"The picture {path.name}", width, height, size)


def check_size(name: str, width: int, height: int, size: int) -> None:
    """Raise ValueError for a picture smaller than the crop: enlarged ones would teach blur."""
    if min(width, height) < size:
        raise ValueError(
            f"{name} has {width} x {height} pixels, less than the crop of {size} x {size}: "
            "choose a smaller size, or leave it out."
        )


def crop(picture: torch.Tensor, size: int) -> torch.Tensor:
    """[H, W, 3] → [size, size, 3]: scaled down to the crop's shorter side, the middle of it.

    Raises ValueError as `check_size` does.
    """
    height, width = picture.shape[:2]
    check_size("A picture", width, height, size)
    scale = size / min(height, width)
    if scale < 1:
        planes = picture[..., :3].movedim(-1, 0)[None].float()
        shape = (max(size, round(height * scale)), max(size, round(width * scale)))
        planes = torch.nn.functional.interpolate(planes, shape, mode="bicubic", antialias=True)
        picture = planes[0].movedim(0, -1).clamp(0, 1)
    top, left = (picture.shape[0] - size) // 2, (picture.shape[1] - size) // 2
    return picture[top : top + size, left : left + size, :3].float().cpu().clone()


def opened(path: Path) -> torch.Tensor:
    """[H, W, 3] in 0…1, turned as its camera says. Raises ValueError for a file that is none."""
    try:
        with Image.open(path) as picture:
            pixels: Any = (
                np.asarray(ImageOps.exif_transpose(picture).convert("RGB"), dtype=np.float32) / 255
            )
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f"The picture {path.name} cannot be read: {error}.") from error
    return torch.from_numpy(pixels)
