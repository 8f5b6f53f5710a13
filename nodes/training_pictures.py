"""Pictures and captions that a training learns from: of sockets, or of a folder below input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from .folders import input_path

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True)
class TrainingPictures:
    """Square pictures [P, size, size, 3] in 0…1 and what each shows."""

    pictures: torch.Tensor
    captions: tuple[str, ...]


def gather(
    images: Sequence[torch.Tensor], captions: Sequence[str], folder: str, size: int
) -> TrainingPictures:
    """Those of the sockets and of the folder together, cropped to `size` around their middle.

    `images` are batches [N, H, W, 3]. Raises ValueError in one sentence where there are none, where
    a caption is missing, or where a picture is smaller than the crop.
    """
    pictures = [picture for batch in images for picture in batch]
    texts = spread_captions(captions, len(pictures))
    for path in picture_files(folder) if folder.strip() else ():
        pictures.append(_opened(path))
        texts.append(caption_of(path))
    if not pictures:
        raise ValueError(
            "There are no pictures to train on: connect images and captions, or name a folder of "
            "them below ComfyUI's input folder."
        )
    return TrainingPictures(torch.stack([crop(one, size) for one in pictures]), tuple(texts))


def spread_captions(captions: Sequence[str], count: int) -> list[str]:
    """One caption for each of `count` pictures: as many texts, or lines of one text; one for all.

    Raises ValueError where the numbers do not fit.
    """
    texts = list(captions)
    if len(texts) == 1 and count != 1:
        texts = [line.strip() for line in texts[0].splitlines() if line.strip()]
    if len(texts) == 1:
        texts *= count
    if count and not any(text.strip() for text in texts):
        raise ValueError(
            "The images have no captions: connect captions, one for each image, or one for all."
        )
    if len(texts) != count:
        raise ValueError(
            f"There are {count} images and {len(texts)} captions: give one caption for each "
            "image, or one for all."
        )
    return texts


def picture_files(folder: str) -> list[Path]:
    """The pictures of a folder below ComfyUI's input folder, in order of their names.

    Raises ValueError for a folder that is not there, has none, or lies elsewhere.
    """
    root = input_path(folder)
    found = [p for p in root.iterdir() if p.suffix.lower() in SUFFIXES] if root.is_dir() else []
    if not found:
        raise ValueError(
            f"The folder input/{folder} has no pictures ({', '.join(SUFFIXES)}): put them there, "
            "each with a .txt file of the same name that holds its caption."
        )
    return sorted(found)


def folder_mark(folder: str) -> str:
    """Another text when a picture or caption of a folder has changed; "" where there are none."""
    try:
        files = picture_files(folder)
    except ValueError:
        return ""
    beside = [path.with_suffix(".txt") for path in files]
    found = [(path.name, path.stat()) for path in (*files, *beside) if path.is_file()]
    return " ".join(f"{name} {stat.st_mtime_ns} {stat.st_size}" for name, stat in found)


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


def check_folder(folder: str, size: int) -> None:
    """Raise ValueError for what can be seen of a folder without reading its pictures."""
    for path in picture_files(folder):
        caption_of(path)
        try:
            with Image.open(path) as picture:
                width, height = picture.size
        except (OSError, UnidentifiedImageError) as error:
            raise ValueError(f"The picture {path.name} cannot be read: {error}.") from error
        _check_size(f"The picture {path.name}", width, height, size)


def crop(picture: torch.Tensor, size: int) -> torch.Tensor:
    """[H, W, 3] → [size, size, 3]: scaled down to the crop's shorter side, the middle of it.

    Raises ValueError for a picture smaller than that: enlarged ones would teach blur.
    """
    height, width = picture.shape[:2]
    _check_size("A picture", width, height, size)
    scale = size / min(height, width)
    if scale < 1:
        planes = picture[..., :3].movedim(-1, 0)[None].float()
        shape = (max(size, round(height * scale)), max(size, round(width * scale)))
        planes = torch.nn.functional.interpolate(planes, shape, mode="bicubic", antialias=True)
        picture = planes[0].movedim(0, -1).clamp(0, 1)
    top, left = (picture.shape[0] - size) // 2, (picture.shape[1] - size) // 2
    return picture[top : top + size, left : left + size, :3].float().cpu().clone()


def _check_size(name: str, width: int, height: int, size: int) -> None:
    if min(width, height) < size:
        raise ValueError(
            f"{name} has {width} x {height} pixels, less than the crop of {size} x {size}: "
            "choose a smaller size, or leave it out."
        )


def _opened(path: Path) -> torch.Tensor:
    try:
        with Image.open(path) as picture:
            pixels: Any = (
                np.asarray(ImageOps.exif_transpose(picture).convert("RGB"), dtype=np.float32) / 255
            )
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f"The picture {path.name} cannot be read: {error}.") from error
    return torch.from_numpy(pixels)
