"""The checker as judges: scores of pictures that no search has climbed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..calibri.evaluation import Floats
from .checker import check
from .prompts import parse

FACTS, ALL_FACTS = "checker: facts shown", "checker: every fact right"


def judgements(pictures: NDArray[np.uint8], prompts: Sequence[str]) -> dict[str, Floats]:
    """Of each picture [B, 64, 64, 3]: the share of its prompt's facts that it shows [B], in 0…1,
    and whether it shows them all [B], 0 or 1."""
    verdicts = [
        check(picture, parse(text)) for picture, text in zip(pictures, prompts, strict=True)
    ]
    return {
        FACTS: np.array([verdict.facts for verdict in verdicts]),
        ALL_FACTS: np.array([verdict.all_facts for verdict in verdicts]),
    }
