"""The batches of an evaluation: what may be planned, how they shrink to fit in memory, and when
they grow again.

A batch too large for the memory is halved, and the journal keeps the size that failed. Memory may
have been short only because something else had it, so after some evaluations that size is tried
again, and after twice as many when it failed again. All of it follows from the journal, so that
batches have the same shapes whether or not the run was resumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .evaluation import Batch, Evaluator, Sample

# Kinds of events: batches were halved; that size or a larger one is tried again.
OUT_OF_MEMORY, LARGER_BATCHES = "out of memory", "larger batches"

TRIED_AGAIN = 16  # evaluations: one batch of some hundreds is then lost at most
MOST_DOUBLINGS = 6  # beyond lies what no evaluator plans


@dataclass(frozen=True)
class Shortage:
    """Memory ran out in an evaluation: `images` at once, at least, were too many.

    `since` evaluations were begun after it.
    """

    images: int
    since: int


def too_many(shortages: Sequence[Shortage]) -> int | None:
    """So many images at once are not to be tried in the next evaluation; None without a limit."""
    if not shortages:
        return None
    last = shortages[-1]
    patience = TRIED_AGAIN << (len(shortages) - 1)
    doublings = last.since // patience
    return None if doublings > MOST_DOUBLINGS else last.images << doublings


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
