"""Whether a run's search is to end before its budget, by what has happened to the run.

A conclusion, or an end because the validations promised little more, holds until the run is given a
larger budget: raising it says that there is to be more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .configuration import RunConfig
from .journal import Event

# Kinds of events: the search is to end with the generation it is in; or it is not, after all.
CONCLUDED, WENT_ON = "concluded", "went on"
# The search ended before its budget (`stopping.py`); the run has its outcome.
STOPPED_EARLY, FINISHED = "stopped early", "finished"


def is_concluded(events: Sequence[Event], config: RunConfig) -> bool:
    """Whether the search was concluded and has not gone on since."""
    last = None
    for event in events:
        if event.kind in (CONCLUDED, WENT_ON):
            last = event
    return last is not None and last.kind == CONCLUDED and not _is_raised(config, last)


def stops_after(events: Sequence[Event], config: RunConfig) -> float:
    """The generation after which the search may stop early.

    Infinite once the budget was raised after it had done so. A budget that was raised after the run
    had spent the old one is spent beyond that, up to a further validation at least.
    """
    raised = [
        event
        for event in events
        if event.kind in (STOPPED_EARLY, FINISHED) and _is_raised(config, event)
    ]
    if any(event.kind == STOPPED_EARLY for event in raised):
        return math.inf
    return max((event.detail["generations"] for event in raised), default=0)


def _is_raised(config: RunConfig, event: Event) -> bool:
    """Whether the budget is larger than it was at this event."""
    seconds = event.detail["max_seconds"]
    allowed = math.inf if seconds is None else seconds
    now = math.inf if config.max_seconds is None else config.max_seconds
    return config.generations > event.detail["generations"] or now > allowed
