"""A folder of pictures with captions, or sorted into one subfolder for each class, as data."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from .pictures import SUFFIXES, caption_of, check_file, crop, opened

CAPTIONS, CLASSES, EITHER = "captions", "classes", "either"
TOLD = (CAPTIONS, CLASSES, EITHER)
"""What a model can be told of the pictures."""
_WHOLE = 1 << 16  # bytes at a file's start and end that its mark is made of, beside its size


class Pictures(Protocol):
    """Square pictures, and of captions and classes one."""

    @property
    def marks(self) -> tuple[str, ...]:
        """One for each crop: other pixels, another mark."""
        ...

    @property
    def size(self) -> int:
        """Pixels of a crop's side."""
        ...

    @property
    def captions(self) -> tuple[str, ...]:
        """One for each picture, or none at all."""
        ...

    @property
    def labels(self) -> tuple[int, ...]:
        """The class of each picture, or none at all."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names."""
        ...

    def crops(self, numbers: Sequence[int]) -> Tensor:
        """Those of these numbers, [B, 3, size, size] in 0…1."""
        ...


@dataclass(frozen=True)
class PictureFolder:
    """Satisfies `Pictures`; files are read when their crops are asked for."""

    files: tuple[Path, ...]
    marks: tuple[str, ...]
    size: int
    captions: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()

    def crops(self, numbers: Sequence[int]) -> Tensor:
        """Raises ValueError for a file that cannot be read."""

        def read(number: int) -> Tensor:
            return crop(opened(self.files[number]), self.size).movedim(-1, 0)

        # Decoding takes longer than a GPU's encoding, and does not hold Python's lock.
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            return torch.stack(list(pool.map(read, numbers)))


def read_folder(root: Path, size: int, told: str = EITHER) -> PictureFolder:
    """All pictures below `root`, in order of their paths.

    `told` is "captions" (.txt files beside the pictures), "classes" (the subfolders of `root`,
    empty ones too, in order of their names), or "either": captions where there is one. Raises
    ValueError in one sentence where there are no pictures, where one is smaller than the crop or
    cannot be read, and where a caption is missing or classes are.
    """
    files = _files(root)
    if not files:
        raise ValueError(
            f"The folder {root} has no pictures ({', '.join(SUFFIXES)}): name one that has, each "
            "with a .txt file that holds its caption, or in a subfolder for each class."
        )
    if told == EITHER:
        captioned = any(path.with_suffix(".txt").is_file() for path in files)
        told = CAPTIONS if captioned or any(path.parent == root for path in files) else CLASSES
    captions: tuple[str, ...] = ()
    labels: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    if told == CAPTIONS:
        captions = tuple(caption_of(path) for path in files)
    else:
        classes = tuple(sorted(path.name for path in root.iterdir() if _is_class(path)))
        labels = tuple(_label(root, path, classes) for path in files)
    for path in files:
        check_file(path, size)
    marks = tuple(f"{path.relative_to(root).as_posix()} {size} {_mark(path)}" for path in files)
    return PictureFolder(files, marks, size, captions, labels, classes)


def _files(root: Path) -> tuple[Path, ...]:
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}: name one with pictures.")
    found = (path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
    return tuple(sorted(path for path in found if not path.name.startswith(".")))


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _label(root: Path, path: Path, classes: Sequence[str]) -> int:
    parts = path.relative_to(root).parts
    if len(parts) < 2:
        raise ValueError(
            f"The picture {path.name} is in no subfolder, which would name its class: put it into "
            "one, or give captions."
        )
    return classes.index(parts[0])


def _mark(path: Path) -> str:
    """Of a file's size, beginning and end: any change of a compressed picture shows there."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_WHOLE))
        if size > _WHOLE:
            file.seek(max(_WHOLE, size - _WHOLE))
            digest.update(file.read(_WHOLE))
    return digest.hexdigest()[:32]
