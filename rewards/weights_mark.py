"""Telling weights files apart by size and samples: a run must go on with those it began with.

Names say nothing: another checkpoint may be saved under the one of earlier.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

PLACES, SAMPLE = 64, 4096  # evenly through a file, bytes at each: milliseconds for 4 GB


def weights_mark(*files: Path) -> str:
    """A hash of the files' sizes and of samples of their bytes, the first and last among them.

    Files up to 256 KiB are read whole. Raises OSError for a file that is not there.
    """
    digest = blake2b(digest_size=8)
    for file in files:
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            digest.update(f"{size}/".encode())
            last = max(0, size - SAMPLE)
            for place in range(PLACES):
                opened.seek(last * place // (PLACES - 1))
                digest.update(opened.read(SAMPLE))
    return digest.hexdigest()


def weights_of(reward: object) -> str:
    """What a reward says of its weights in `weights`; empty for one that says nothing in words."""
    mark = getattr(reward, "weights", "")
    return mark if isinstance(mark, str) else ""


def weights_together(rewards: Sequence[object]) -> str:
    """`weights` of a reward that is made of others."""
    return " ".join(mark for mark in map(weights_of, rewards) if mark)
