"""Replay: the search recomputed from its journal must be the search that wrote it.

The optimiser's state is nowhere stored. Each vector that the recomputed search asks for is compared
with the one in the journal, and a difference stops the run before it spends anything on a search
that is no longer the one it was.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .evaluation import Floats
from .journal import Evaluation, Journal, JournalError
from .likeness import DEVICE

# A library's arithmetic may differ in the last bits between machines; a search that really took
# another turn differs by orders of magnitude more, and no model tells 1e-9 apart.
REPLAY_TOLERANCE = 1e-9


class ReplayError(JournalError):
    """The search recomputed from a journal is another one than the journal's."""


def check_replay(
    journal: Journal, evaluation: Evaluation, vectors: Floats, versions: Mapping[str, str]
) -> None:
    """Raises ReplayError where the recomputed `vectors` [K, N] are not those of `evaluation`.

    It names which of `versions` (now) are not those that the run was started with.
    """
    journalled = evaluation.vectors
    if journalled.shape == vectors.shape:
        difference = float(np.abs(journalled - vectors).max())
        if difference <= REPLAY_TOLERANCE:
            return
        what = f"differs by up to {difference:.2g}"
    else:
        what = f"has shape {vectors.shape}, not {journalled.shape}"
    raise ReplayError(
        f"The search recomputed from {journal.path} {what} from what it holds for "
        f"{evaluation.role} {evaluation.generation}: {_cause(journal, versions)}, or begin a new "
        "run from the best validated mean of this one, which the journal keeps."
    )


def _cause(journal: Journal, now: Mapping[str, str]) -> str:
    kept = (event.detail["versions"] for event in journal.events() if "versions" in event.detail)
    began: Mapping[str, str] = next(kept, {})
    changed = [
        f"{name} ({began.get(name, 'absent')}, now {now.get(name, 'absent')})"
        # The search is computed by this process, whatever device draws.
        for name in sorted((began.keys() | now.keys()) - {DEVICE})
        if began.get(name) != now.get(name)
    ]
    if changed:
        return f"since the run began {', '.join(changed)} changed. Put back what it began with"
    return (
        "every library is as it was when the run began, so this machine computes otherwise. Go on "
        "where it began"
    )
