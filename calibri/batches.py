"""The batches of an evaluation: what may be planned, and how they shrink to fit in memory.

A batch too large for the memory is halved, and the journal keeps the size that failed, so that
later batches have the same shapes whether or not the run was resumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .evaluation import Batch, Evaluator, Sample


def plan_batches(
    evaluator: Evaluator, candidates: int, bucket: Sequence[Sample], too_large: int | None
) -> list[Batch]:
    """The evaluator's plan, each batch smaller than `too_large` images.

    Raises ValueError for a plan that does not hold every pair exactly once.
    """
    batches = evaluator.plan(candidates, bucket)
    pairs = [pair for batch in batches for pair in batch]
    wanted = [(c, p) for c in range(candidates) for p in range(len(bucket))]
    if sorted(pairs) != wanted or not all(batches):
        raise ValueError(
            f"The evaluator planned {len(pairs)} pairs for {candidates} candidates x "
            f"{len(bucket)} samples: its batches must hold every pair exactly once."
        )
    return batches if too_large is None else limited(batches, too_large)


def limited(batches: Iterable[Batch], too_large: int) -> list[Batch]:
    """The batches, those of `too_large` images or more halved until they are smaller."""
    smaller: list[Batch] = []
    for batch in batches:
        if len(batch) < max(too_large, 2):
            smaller.append(batch)
        else:
            half = (len(batch) + 1) // 2
            smaller += limited([batch[:half], batch[half:]], too_large)
    return smaller
