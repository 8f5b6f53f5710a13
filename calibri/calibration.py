"""A calibration from its start to its outcome, in one call.

`course.py` says what is evaluated when, `session.py` does it batch by batch. Everything that costs
images is in the journal, and everything else is recomputed from it, so calling `calibrate` again
continues a run that was interrupted or whose budget was raised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .configuration import RunConfig, RunConfigError
from .evaluation import Evaluator
from .journal import Journal
from .outcome import GenerationSummary, Outcome
from .session import Session

if TYPE_CHECKING:
    from .ensemble_space import EnsembleSpace

__all__ = ["GenerationSummary", "Outcome", "RunConfig", "RunConfigError", "calibrate"]


def calibrate(
    config: RunConfig,
    space: EnsembleSpace,
    evaluator: Evaluator,
    journal: Journal,
    on_generation: Callable[[GenerationSummary], None] | None = None,
    on_batch: Callable[[int, int], None] | None = None,
    versions: Mapping[str, str] | None = None,
    between: Callable[[Session], None] | None = None,
    begun: Callable[[], None] | None = None,
) -> Outcome:
    """Run, or continue, the calibration that `journal` holds, and say what it recommends.

    `on_generation` hears each generation that ended now; `on_batch(done, total)` counts images,
    those of earlier sessions included, and reaches `total` at the end even where a time budget
    ended the search early. `versions` are the host's, for the journal. `between` is called between
    two batches, and may conclude the session or raise; `begun` once, when the journal is found to
    be this run's and before anything is drawn. What the evaluator or a callback raises
    comes through and leaves the journal resumable. Raises JournalError where the journal belongs to
    another configuration, ReplayError where its search cannot be recomputed, RewardError for
    unusable rewards.
    """
    session = Session(config, space, evaluator, journal, on_generation, on_batch, versions)
    if begun is not None:
        begun()
    while session.advance():
        if between is not None:
            between(session)
    assert session.outcome is not None
    return session.outcome
