"""What a person sees of a running calibration: ComfyUI's progress bar with before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import comfy.model_management
import comfy.utils
import numpy as np
from PIL import Image

from ..calibri.before_after import before_and_after
from ..calibri.course_words import generation_words

if TYPE_CHECKING:
    from ..calibri.calibration import GenerationSummary
    from ..calibri.ensemble_space import EnsembleSpace
    from ..calibri.evaluation import Sample
    from .sampling import ComfyEvaluator

PREVIEWED = 4  # pictures, each before and after
PREVIEW_SIDE = 512  # pixels of the preview's longer side


class Progress:
    """Counts images on the progress bar and previews the search's mean after each generation.

    `samples` are the pictures shown: the plain model's above, the calibrated model's below. `say`
    gets one line of numbers a generation.
    """

    def __init__(
        self,
        evaluator: ComfyEvaluator,
        space: EnsembleSpace,
        samples: Sequence[Sample],
        say: Callable[[str], None],
    ) -> None:
        self._evaluator, self._space = evaluator, space
        self._samples = samples[:PREVIEWED]
        self._say = say
        self._bar = comfy.utils.ProgressBar(1)
        self._before: np.ndarray | None = None
        self._done, self._total = 0, 1

    def on_batch(self, done: int, total: int) -> None:
        """Count; also a point where Cancel takes effect."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._done, self._total = done, total
        self._bar.update_absolute(done, total)

    def on_generation(self, summary: GenerationSummary) -> None:
        """Preview the search's mean as it stands."""
        if self._before is None:
            self._before = self._evaluator.images(self._space.identity[None], self._samples)[0]
        self._say(generation_words(self._evaluator.reward_name, summary))
        after = self._evaluator.images(summary.vector[None], self._samples)[0]
        picture = Image.fromarray(before_and_after(self._before, after))
        self._bar.update_absolute(self._done, self._total, ("JPEG", picture, PREVIEW_SIDE))
