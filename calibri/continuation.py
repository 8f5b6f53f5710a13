"""What a journal has found, read without recomputing its search.

A run whose search cannot be recomputed (`replay.py`), or whose model or settings have changed, does
not go on; a new run can begin at what it found.
"""

from __future__ import annotations

from collections.abc import Iterator

from .evaluation import Floats
from .journal import Journal
from .selection import START

Found = tuple[int, Floats]
"""A generation, named as in `Outcome`, and its vector [D] in the space of the journal's run."""


def last_mean(journal: Journal) -> Found | None:
    """The search's mean when it was last validated; None before the first validation is whole."""
    found = None
    for generation, vector, _ in _validated(journal):
        found = generation, vector
    return found


def best_mean(journal: Journal) -> Found | None:
    """What a run recommends if it ended, else the best validated mean; None before there is one.

    In a journal that went on after it had ended the last selection counts if no generation has
    begun since.
    """
    validated = list(_validated(journal))
    searched = journal.last_generation()
    selection = journal.evaluation("selection", searched)
    confirmation = journal.evaluation("confirmation", searched)
    if selection is not None and confirmation is not None and not confirmation.pending:
        vector = selection.vectors[int(selection.rewards.mean(axis=1).argmax())]
        return next(g for g, mean, _ in validated if (mean == vector).all()), vector
    if not validated:
        return None
    generation, vector, _ = min(validated, key=lambda found: (-found[2], abs(found[0])))
    return generation, vector


def _validated(journal: Journal) -> Iterator[tuple[int, Floats, float]]:
    """Generations, their means and validation rewards, by generation; START first of all but 0."""
    for evaluation in sorted(journal.evaluations("validation"), key=lambda e: e.generation):
        if evaluation.pending:
            continue
        # Beside the plain model a warm start's preset was validated, in a row of its own.
        for generation, vector, rewards in zip(
            (evaluation.generation, START), evaluation.vectors, evaluation.rewards, strict=False
        ):
            yield generation, vector, float(rewards.mean())
