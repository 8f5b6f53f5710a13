"""A run's pictures before and after, kept small as they are drawn: each validation draws the same
prompts from the same noise, the first of them with the plain model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...calibri.atomic_file import write_atomically
from ...calibri.before_after import before_and_after
from .. import runs

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from ...calibri.evaluation import Batch, Sample
    from ..sampling import ComfyEvaluator
    from .run import Run

FOLDER = "pictures"  # in a run's folder
BEFORE, AFTER = "before", "after"
PICTURED = 4  # prompts
SIDE = 320  # pixels of a picture's longer side
WIDEST = 2048  # pixels of what a page gets


class Album:
    """Keeps the pictures that a run's evaluator draws. `row` names whose they are, "" for no row of
    the album."""

    def __init__(self, folder: Path, row: Callable[[], str]) -> None:
        self._folder, self._row = folder / FOLDER, row

    @contextmanager
    def open(
        self, evaluator: ComfyEvaluator, batch: Batch, bucket: Sequence[Sample]
    ) -> Iterator[None]:
        """Within, the evaluator runs this batch."""
        row = self._row()
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


def picture_of(run: Run) -> bytes | None:
    """A run's pictures as a JPEG, the plain model's above; None where it has none yet.

    A finished run's are those of its report.
    """
    from PIL import Image

    source = _source(run)
    if source is None:
        return None
    if source.suffix == ".png":
        with Image.open(source) as report:
            picture = report.convert("RGB")
        picture.thumbnail((WIDEST, WIDEST))
        return _jpeg(picture)
    pairs = []
    for place in range(PICTURED):
        files = [run.folder / FOLDER / f"{row}-{place}.jpg" for row in (BEFORE, AFTER)]
        if all(file.is_file() for file in files):
            pairs.append([_pixels(file) for file in files])
    if not pairs:
        return None
    before, after = (np.stack(row) for row in zip(*pairs, strict=True))
    return _jpeg(Image.fromarray(before_and_after(before, after)))


def picture_mark(run: Run) -> str | None:
    """Another one for each other picture; None where there is none."""
    source = _source(run)
    try:
        return None if source is None else str(source.stat().st_mtime_ns)
    except FileNotFoundError:
        return None


def _source(run: Run) -> Path | None:
    """The newest of the files that a picture is made of."""
    report = runs.output_folder(run.id) / runs.BEFORE_AFTER
    drawn = list((run.folder / FOLDER).glob(f"{AFTER}-*.jpg"))
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
