"""What a journal has found, read without recomputing its search.

A run whose search cannot be recomputed (`replay.py`), or whose model or settings have changed, does
not go on; a new run can begin at what it found.
"""

from __future__ import annotations

from collections.abc import Iterator

from .backbones import Backbone
from .coefficients import coefficient_space
from .ensemble_space import EnsembleSpace, ensemble_space
from .evaluation import Floats
from .journal import Journal, JournalError
from .preset_metadata import Guidance, Preset
from .selection import START

Found = tuple[int, Floats]
"""A generation, named as in `Outcome`, and its vector [D] in the space of the journal's run."""


def best_mean(journal: Journal) -> Found | None:
    """What a run recommends if it ended, else the best validated mean; None before there is one.

    In a journal that went on after it had ended the last selection counts if no generation has
    begun since.
    """
    validated = list(_validated(journal))
    searched = journal.last_generation()
    recommended = _recommended(journal, searched)
    if recommended is not None:
        return next((g, mean) for g, mean, _ in validated if g == recommended)
    # An earlier version recommended whatever it confirmed.
    confirmation = journal.evaluation("confirmation", searched)
    if confirmation is not None and not confirmation.pending:
        vector = confirmation.vectors[-1]
        return next(g for g, mean, _ in validated if (mean == vector).all()), vector
    if not validated:
        return None
    generation, vector, _ = min(validated, key=lambda found: (-found[2], abs(found[0])))
    return generation, vector


def _recommended(journal: Journal, searched: int) -> int | None:
    """The generation that the run recommended when it last ended, after `searched` generations."""
    for event in reversed(journal.events()):
        if event.kind == "finished" and event.detail.get("searched") == searched:
            recommended: int = event.detail["recommended"]
            return recommended
    return None


def found_preset(journal: Journal, backbone: Backbone) -> Preset | None:
    """`best_mean` as a preset for a model of the run's kind, to `warm_start` a new run from.

    None before the first validation is whole. Raises JournalError for a model of another kind.
    """
    found = best_mean(journal)
    if found is None:
        return None
    space = _space(journal, backbone)
    return Preset(
        family=backbone.family,
        blocks=dict(backbone.blocks),
        granularity=space.granularity,
        members=space.preset_members(found[1]),
        guidance=space.guidance,
    )


def _space(journal: Journal, backbone: Backbone) -> EnsembleSpace:
    """The space that a journal's run searches, on this model."""
    run = journal.config() or {}
    family, names = run["family"], run["coefficients"]
    if family == backbone.family:
        guided = run.get("guided_members")
        space = ensemble_space(
            coefficient_space(backbone, run["granularity"]),
            run.get("members", 1),
            None if guided is None else Guidance(**guided),
        )
        if list(space.names) == names:
            return space
    raise JournalError(
        f"The journal {journal.path} is of a {family} model with {len(names)} coefficients, and "
        f"the model now is another {backbone.family} model: connect a model of that kind, or begin "
        "at the plain model."
    )


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
