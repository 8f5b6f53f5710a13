"""Noticing a reward that tells no candidates apart, before nights are spent on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .outcome import GenerationSummary

GENERATIONS = 2  # a reward that counts things may find none in a whole bucket once


def alike(reward: str, history: Sequence[GenerationSummary]) -> str:
    """What to say of the `reward` where all candidates had the same score within each of the last
    generations of the `history`; empty where one of them told candidates apart.

    A warning and no error: few images of a reward that is mostly 0 may all be alike by chance.
    """
    latest = history[-GENERATIONS:]
    if len(latest) < GENERATIONS or not all(math.isclose(g.best, g.worst) for g in latest):
        return ""
    return (
        f"{reward} gave all candidates of a generation the same score, {GENERATIONS} times in a "
        f"row ({latest[-1].best:g}), so the search has nothing to go by. See with Score Images "
        "whether it tells pictures of these prompts apart; if it does, take a larger bucket_size."
    )
