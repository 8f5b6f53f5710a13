"""The demo model as a calibration's evaluator without ComfyUI: candidates and samples in, rewards
out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..calibri.ensemble_space import EnsembleSpace
from ..calibri.evaluation import Batch, Floats, Sample
from .judges import judgements
from .pictures import MOST_ROWS, DemoModels, DemoPictures, Layer, to_bytes


class DemoEvaluator:
    """The demo model at a number of steps and a cfg; satisfies `calibri.evaluation.Evaluator`.

    `Sample.prompt` indexes `prompts`.
    """

    def __init__(
        self,
        models: DemoModels,
        space: EnsembleSpace,
        prompts: Sequence[str],
        steps: int,
        cfg: float = 1.0,
    ) -> None:
        self.space, self.reward, self.prompts = space, models.reward, tuple(prompts)
        self._pictures = DemoPictures(models, self.prompts)
        self._steps, self._cfg = steps, cfg

    def plan(self, candidates: int, bucket: Sequence[Sample]) -> list[Batch]:
        """Batches of near equal size; all candidates of a sample stand together."""
        pairs = [(candidate, p) for p in range(len(bucket)) for candidate in range(candidates)]
        count = -(-len(pairs) // MOST_ROWS)
        size = -(-len(pairs) // count)
        return [tuple(pairs[start : start + size]) for start in range(0, len(pairs), size)]

    @torch.no_grad()
    def run(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample]) -> Floats:
        """Rewards [len(batch)]."""
        prompts = [self.prompts[bucket[position].prompt] for _, position in batch]
        rewards = self.reward.score(self._draw(batch, vectors, bucket), prompts)
        return np.asarray(rewards.double().numpy())

    def judge(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample], judge: str) -> Floats:
        """Scores [len(batch)] of one of `judges.py`."""
        prompts = [self.prompts[bucket[position].prompt] for _, position in batch]
        pictures = to_bytes(self._draw(batch, vectors, bucket)).numpy()
        return judgements(pictures, prompts)[judge]

    def images(self, vectors: Floats, bucket: Sequence[Sample]) -> NDArray[np.uint8]:
        """Pictures [K, len(bucket), 64, 64, 3]."""
        drawn: dict[tuple[int, int], NDArray[np.uint8]] = {}
        for batch in self.plan(len(vectors), bucket):
            pictures = to_bytes(self._draw(batch, vectors, bucket)).numpy()
            drawn.update(zip(batch, pictures, strict=True))
        candidates, positions = range(len(vectors)), range(len(bucket))
        return np.stack([[drawn[candidate, p] for p in positions] for candidate in candidates])

    def _draw(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample]) -> Tensor:
        gains, weights = self.space.expand(vectors[[candidate for candidate, _ in batch]])
        layer = Layer(
            torch.as_tensor(gains, dtype=torch.float32),
            None if weights is None else torch.as_tensor(weights, dtype=torch.float32),
            self.space.guidance,
        )
        samples = [bucket[position] for _, position in batch]
        return self._pictures.draw(samples, layer, self._steps, self._cfg)
