"""When a slice makes room: it looks around between sampler steps and while it waits for a reward of
another process, and batches that take long end at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from ...calibri import yielding
from ...calibri.evaluation import Batch, Floats, Sample
from ...calibri.yielding import YieldDecision, YieldedError

if TYPE_CHECKING:
    from ..album import Album
    from ..sampling import ComfyEvaluator


def make_room() -> None:
    """Told again and again while something outside ComfyUI is waited for, which may never come.

    Raises YieldedError within a slice where somebody waits too long.
    """
    pace = _looking.get()
    if pace is not None:
        pace.wait()


class Pace:
    """Follows the batches of one run."""

    def __init__(self) -> None:
        self._is_wanted: Callable[[], bool] | None = None
        self._wanted_since: float | None = None
        self.decision = YieldDecision()

    @contextmanager
    def looking(self, is_wanted: Callable[[], bool]) -> Iterator[None]:
        """Within, end long batches as soon as `is_wanted` says that somebody waits."""
        self._is_wanted, self._wanted_since = is_wanted, None
        token = _looking.set(self)
        try:
            yield
        finally:
            _looking.reset(token)
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

    def wait(self) -> None:
        """Hear that the batch waits for another process; raises YieldedError as `watch` does.

        What hangs is foretold to end at any moment: patience with it has an end as well.
        """
        if self._is_wanted is None or not self._is_wanted():
            self._wanted_since = None
            return
        now = time.monotonic()
        if self._wanted_since is None:
            self._wanted_since = now
        if self.decision.at_once() or now - self._wanted_since > yielding.PATIENCE:
            raise YieldedError("Somebody waits for the queue.")


_looking: ContextVar[Pace | None] = ContextVar("looking", default=None)


class PacedEvaluator:
    """A run's evaluator that tells its pace when a batch begins and ends, and shows its album what
    it draws."""

    def __init__(self, evaluator: ComfyEvaluator, pace: Pace, album: Album) -> None:
        self._evaluator, self._decision, self._album = evaluator, pace.decision, album

    def plan(self, candidates: int, bucket: Sequence[Sample]) -> list[Batch]:
        return self._evaluator.plan(candidates, bucket)

    def run(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample]) -> Floats:
        self._decision.begin(len(batch))
        with self._album.open(self._evaluator, batch, vectors, bucket):
            rewards = self._evaluator.run(batch, vectors, bucket)
        self._decision.end()
        return rewards

    def judge(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample], judge: str) -> Floats:
        self._decision.begin(len(batch))
        values = self._evaluator.judge(batch, vectors, bucket, judge)
        self._decision.end()
        return values
