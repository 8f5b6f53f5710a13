"""A run's pictures before and after, kept small as they are drawn: each validation draws the same
prompts from the same noise, the first of them with the plain model.

A run in the background has its evaluator open the album itself; `PicturedEvaluator` does it for a
run that draws on and on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..calibri.atomic_file import write_atomically
from ..calibri.before_after import before_and_after
from . import runs

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from ..calibri.evaluation import Batch, Floats, Sample
    from .calibration_inputs import Prepared
    from .sampling import ComfyEvaluator

FOLDER = "pictures"  # in a run's folder
BEFORE, AFTER = "before", "after"
PICTURED = 4  # prompts
SIDE = 320  # pixels of a picture's longer side
WIDEST = 2048  # pixels of what a page gets


class Album:
    """Keeps the pictures that the evaluator of the run in `folder` draws for its validations."""

    def __init__(self, folder: Path, prepared: Prepared) -> None:
        self._folder = folder / FOLDER
        self._validated = prepared.config.validation_samples()
        self._plain = prepared.space.identity

    @contextmanager
    def open(
        self, evaluator: ComfyEvaluator, batch: Batch, vectors: Floats, bucket: Sequence[Sample]
    ) -> Iterator[None]:
        """Within, the evaluator runs this batch."""
        row = ""
        if tuple(bucket) == tuple(self._validated):
            row = BEFORE if np.array_equal(vectors[0], self._plain) else AFTER
        first: dict[int, int] = {}  # prompt -> its first position
        for position, sample in enumerate(bucket):
            first.setdefault(sample.prompt, position)
        places = {position: place for place, position in enumerate(list(first.values())[:PICTURED])}
        # Candidate 0 is the one validated; a warm start's is validated beside the plain model.
        wanted = {i: places[p] for i, (c, p) in enumerate(batch) if c == 0 and p in places}

        def keep(images: torch.Tensor) -> None:
            for index, place in wanted.items():
                self._keep(images[index], f"{row}-{place}.jpg")

        evaluator.on_pictures = keep if row and wanted else None
        try:
            yield
        finally:
            evaluator.on_pictures = None

    def _keep(self, image: torch.Tensor, name: str) -> None:
        from PIL import Image

        pixels = (image.detach().cpu().float().clamp(0, 1).numpy() * 255).round().astype(np.uint8)
        picture = Image.fromarray(pixels)
        picture.thumbnail((SIDE, SIDE))
        # A full disk must not end a calibration for the sake of a picture.
        try:
            self._folder.mkdir(exist_ok=True)
            write_atomically(self._folder / name, _jpeg(picture))
        except OSError:
            return


class PicturedEvaluator:
    """A run's evaluator that shows an album what it draws."""

    def __init__(self, evaluator: ComfyEvaluator, album: Album) -> None:
        self._evaluator, self._album = evaluator, album

    def plan(self, candidates: int, bucket: Sequence[Sample]) -> list[Batch]:
        return self._evaluator.plan(candidates, bucket)

    def run(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample]) -> Floats:
        with self._album.open(self._evaluator, batch, vectors, bucket):
            return self._evaluator.run(batch, vectors, bucket)

    def judge(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample], judge: str) -> Floats:
        return self._evaluator.judge(batch, vectors, bucket, judge)


def picture_of(folder: Path) -> bytes | None:
    """The pictures of the run in `folder` as a JPEG, the plain model's above; None where it has
    none yet.

    A finished run's are those of its report.
    """
    from PIL import Image

    source = _source(folder)
    if source is None:
        return None
    if source.suffix == ".png":
        with Image.open(source) as report:
            picture = report.convert("RGB")
        picture.thumbnail((WIDEST, WIDEST))
        return _jpeg(picture)
    pairs = []
    for place in range(PICTURED):
        files = [folder / FOLDER / f"{row}-{place}.jpg" for row in (BEFORE, AFTER)]
        if all(file.is_file() for file in files):
            pairs.append([_pixels(file) for file in files])
    if not pairs:
        return None
    before, after = (np.stack(row) for row in zip(*pairs, strict=True))
    return _jpeg(Image.fromarray(before_and_after(before, after)))


def picture_mark(folder: Path) -> str | None:
    """Another one for each other picture; None where there is none."""
    source = _source(folder)
    try:
        return None if source is None else str(source.stat().st_mtime_ns)
    except FileNotFoundError:
        return None


def _source(folder: Path) -> Path | None:
    """The newest of the files that a picture is made of."""
    report = runs.output_folder(folder.name) / runs.BEFORE_AFTER
    drawn = list((folder / FOLDER).glob(f"{AFTER}-*.jpg"))
    found = [file for file in (report, *drawn) if file.is_file()]
    return max(found, key=lambda file: file.stat().st_mtime_ns, default=None)


def _pixels(file: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))


def _jpeg(picture: Image) -> bytes:
    data = BytesIO()
    picture.save(data, format="jpeg", quality=90)
    return data.getvalue()
