"""What a person sees of a running evaluation: the bar, and plain above calibrated pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import comfy.model_management
import comfy.utils
import numpy as np
from PIL import Image

from ..calibri.before_after import before_and_after
from .progress import PREVIEW_SIDE, PREVIEWED
from .sampling import MAX_ROWS

if TYPE_CHECKING:
    from ..calibri.comparison import Comparison
    from ..calibri.comparison_course import Progressed

_PARTS = 100  # of an image on the bar, so that it moves at each step


class EvaluationProgress:
    """Counts images on the progress bar and previews each batch as it ends."""

    def __init__(self, comparison: Comparison, say: Callable[[str], None]) -> None:
        self._comparison, self._say = comparison, say
        self._bar = comfy.utils.ProgressBar(comparison.images * _PARTS)
        self._done = 0
        # Images of the newest batch; the next one is likely to be as large.
        self._batch = min(MAX_ROWS, len(comparison.samples))
        self._pictures: dict[int, np.ndarray] = {}  # of that batch, by variant
        self._shown: object = None

    def on_step(self, done: int, steps: int) -> None:
        """A step of a batch is done; also a point where Cancel takes effect."""
        within = self._batch * _PARTS * min(done, steps) // (steps + 1)
        self._bar.update_absolute(min(self._done * _PARTS + within, self._bar.total - 1))

    def on_batch(self, step: Progressed) -> None:
        """A batch is done: count it, and show it beside the plain model's."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._done, self._batch = step.done, len(step.batch)
        if (step.setting, step.batch) != self._shown:
            self._pictures, self._shown = {}, (step.setting, step.batch)
        preview = None
        if step.images is not None:
            self._pictures[step.variant] = step.images[:PREVIEWED]
            preview = self._preview(step.variant)
            self._say(self._words(step))
        self._bar.update_absolute(step.done * _PARTS, None, preview)

    def _preview(self, variant: int) -> tuple[str, Image.Image, int] | None:
        plain, own = self._pictures.get(0), self._pictures[variant]
        if plain is None:
            return None
        return ("JPEG", Image.fromarray(before_and_after(plain, own)), PREVIEW_SIDE)

    def _words(self, step: Progressed) -> str:
        setting = self._comparison.settings[step.setting]
        return (
            f"{step.done} of {step.total} images: {self._comparison.variants[step.variant]}, "
            f"{setting.steps} steps, cfg {setting.cfg:g}, {setting.sampler}, "
            f"{setting.width} x {setting.height}"
        )
