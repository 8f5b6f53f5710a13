"""Where the official code's recordings lie: beside the clone, or where CALIBRI_VECTORS says."""

from __future__ import annotations

import os
from pathlib import Path

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "vectors"


def official_vectors() -> list[Path]:
    """The recordings' JSON files, none where nobody has any.

    AssertionError where they are promised (by CALIBRI_VECTORS, or in CI by the folder beside the
    clone) and missing: tests without them would pass for nothing.
    """
    named = os.environ.get("CALIBRI_VECTORS")
    folder = Path(named) if named else BESIDE
    found = sorted(folder.glob("*.json"))
    in_ci = os.environ.get("CI", "").lower() in ("1", "true") and BESIDE.parent.is_dir()
    assert found or not (named or in_ci), f"there are no recordings in {folder}"
    return found
