"""Pictures and captions that a training learns from: of sockets, or of a folder below input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..ahpa.pictures import SUFFIXES, caption_of, check_file, crop, opened
from .folders import input_path


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
        pictures.append(opened(path))
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


def check_folder(folder: str, size: int) -> None:
    """Raise ValueError for what can be seen of a folder without reading its pictures."""
    for path in picture_files(folder):
        caption_of(path)
        check_file(path, size)
