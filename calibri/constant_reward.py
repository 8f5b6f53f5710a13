"""Noticing a reward that tells no candidates apart, before nights are spent on it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .evaluation import RewardError
from .outcome import GenerationSummary

GENERATIONS = 2  # a reward that counts things may find none in a whole bucket once


def check_not_constant(reward: str, history: Sequence[GenerationSummary]) -> None:
    """Raises RewardError, naming the `reward`, where within each generation of the `history` all
    candidates had the same score."""
    if not all(math.isclose(past.best, past.worst) for past in history):
        return
    raise RewardError(
        f"{reward} gave all candidates of a generation the same score, {len(history)} times in a "
        f"row ({history[-1].best:g}), so there is nothing to search by. See with Score Images "
        "whether it tells pictures apart, then calibrate with another one, or under another "
        "run_name."
    )
