"""When a slice makes room: it looks around between sampler steps, and batches that take long end
at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...calibri.evaluation import Batch, Floats, Sample
from ...calibri.yielding import YieldDecision

if TYPE_CHECKING:
    from ..sampling import ComfyEvaluator


class YieldedError(Exception):
    """A batch ended before its time because somebody waits; nothing of it is kept."""


class Pace:
    """Follows the batches of one run."""

    def __init__(self) -> None:
        self._is_wanted: Callable[[], bool] | None = None
        self.decision = YieldDecision()

    @contextmanager
    def looking(self, is_wanted: Callable[[], bool]) -> Iterator[None]:
        """Within, end long batches as soon as `is_wanted` says that somebody waits."""
        self._is_wanted = is_wanted
        try:
            yield
        finally:
            self._is_wanted = None

    def watch(self, done: int, steps: int) -> None:
        """Hear of a sampler step, or that decoding or scoring comes next.

        Raises YieldedError where somebody would wait too long.
        """
        self.decision.step(done, steps)
        # Step 0 is between two prompts that are encoded: what is encoded is kept.
        leaves = done == 0 or self.decision.at_once()
        if leaves and self._is_wanted is not None and self._is_wanted():
            raise YieldedError("Somebody waits for the queue.")


class PacedEvaluator:
    """A run's evaluator that tells its pace when a batch begins and ends."""

    def __init__(self, evaluator: ComfyEvaluator, pace: Pace) -> None:
        self._evaluator, self._decision = evaluator, pace.decision

    def plan(self, candidates: int, bucket: Sequence[Sample]) -> list[Batch]:
        return self._evaluator.plan(candidates, bucket)

    def run(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample]) -> Floats:
        self._decision.begin(len(batch))
        rewards = self._evaluator.run(batch, vectors, bucket)
        self._decision.end()
        return rewards
