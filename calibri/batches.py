"""Runs one evaluation batch by batch, each result in the journal before the next batch begins.

An evaluation that the journal already holds is not run again, and one that was interrupted goes on
with the batches it had planned. A batch too large for the memory is halved, and the journal keeps
the size that failed, so that later batches have the same shapes whether or not the run was resumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from .evaluation import Batch, BatchTooLargeError, Evaluator, Floats, Sample, check_rewards
from .journal import Evaluation, Journal, JournalError

# A library's arithmetic may differ in the last bits between machines; a search that really took
# another turn differs by orders of magnitude more, and no model tells 1e-9 apart.
REPLAY_TOLERANCE = 1e-9


class BatchRunner:
    """Turns vectors and a bucket into rewards through the journal.

    `reward` is the reward's name for messages; `on_result(images)` hears of images that have got
    their reward, also of those that the journal already held.
    """

    def __init__(
        self,
        journal: Journal,
        evaluator: Evaluator,
        reward: str,
        on_result: Callable[[int], None],
    ) -> None:
        self._journal = journal
        self._evaluator = evaluator
        self._reward = reward
        self._on_result = on_result
        self._last_result = time.monotonic()

    def evaluate(
        self,
        role: str,
        generation: int,
        vectors: Floats,
        bucket: Sequence[Sample],
        prompts: Sequence[str],
    ) -> Evaluation:
        """The complete evaluation of `vectors` [K, N] on `bucket`, whose samples index `prompts`.

        Raises JournalError where the journal holds other vectors for this role and generation,
        RewardError for unusable rewards, and whatever the evaluator raises.
        """
        evaluation = self._journal.evaluation(role, generation)
        if evaluation is None:
            batches = self._plan(len(vectors), bucket)
            self._journal.add_evaluation(role, generation, vectors, bucket, batches)
            evaluation = self._begun(role, generation)
        else:
            self._check_replay(evaluation, vectors)
            if evaluation.done:
                self._on_result(evaluation.done)
        while evaluation.pending:
            try:
                for batch in evaluation.pending:
                    self._run(evaluation, batch, prompts)
            except BatchTooLargeError:
                if len(batch) == 1:
                    raise
                left = self._begun(role, generation).pending
                halves = _limited(left, len(batch))
                self._journal.replace_plan(evaluation, halves, too_large=len(batch))
            evaluation = self._begun(role, generation)
        return evaluation

    def _plan(self, candidates: int, bucket: Sequence[Sample]) -> list[Batch]:
        batches = self._evaluator.plan(candidates, bucket)
        pairs = [pair for batch in batches for pair in batch]
        wanted = [(c, p) for c in range(candidates) for p in range(len(bucket))]
        if sorted(pairs) != wanted or not all(batches):
            raise ValueError(
                f"The evaluator planned {len(pairs)} pairs for {candidates} candidates x "
                f"{len(bucket)} samples: its batches must hold every pair exactly once."
            )
        too_large = self._journal.too_large()
        return batches if too_large is None else _limited(batches, too_large)

    def _run(self, evaluation: Evaluation, batch: Batch, prompts: Sequence[str]) -> None:
        values = self._evaluator.run(batch, evaluation.vectors, evaluation.bucket)
        texts = [prompts[evaluation.bucket[position].prompt] for _, position in batch]
        rewards = check_rewards(values, batch, self._reward, texts)
        now = time.monotonic()
        self._journal.add_result(evaluation, batch, rewards, now - self._last_result)
        self._last_result = now
        self._on_result(len(batch))

    def _begun(self, role: str, generation: int) -> Evaluation:
        evaluation = self._journal.evaluation(role, generation)
        assert evaluation is not None
        return evaluation

    def _check_replay(self, evaluation: Evaluation, vectors: Floats) -> None:
        journalled = evaluation.vectors
        if journalled.shape == vectors.shape:
            difference = float(np.abs(journalled - vectors).max())
            if difference <= REPLAY_TOLERANCE:
                return
            what = f"differs by up to {difference:.2g}"
        else:
            what = f"has shape {vectors.shape}, not {journalled.shape}"
        raise JournalError(
            f"The search recomputed from {self._journal.path} {what} from what it holds for "
            f"{evaluation.role} {evaluation.generation}: the optimiser's library changed since the "
            "run began. Go on with the versions named in its 'started' event, or begin a new run."
        )


def _limited(batches: Iterable[Batch], too_large: int) -> list[Batch]:
    """The batches, those of `too_large` images or more halved until they are smaller."""
    limited: list[Batch] = []
    for batch in batches:
        if len(batch) < max(too_large, 2):
            limited.append(batch)
        else:
            half = (len(batch) + 1) // 2
            limited += _limited([batch[:half], batch[half:]], too_large)
    return limited
