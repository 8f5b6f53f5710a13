"""Checkpoints of Calibri's official code, `cmaes_step_NNNN.json`, read and written.

A checkpoint comes from a stranger: a small JSON object whose `solution`, the flat vector, and
`shapes` have to fit each other. All else in it tells people how the search went, and may be absent.
"""

from __future__ import annotations

import datetime
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .atomic_file import save_atomically
from .coefficients import LOWER, UPPER
from .official import OfficialCheckpointError, read_layout
from .preset_metadata import MAX_WEIGHT

# The longest published vector makes some twenty kilobytes.
MAX_BYTES = 2**20
# Python reads whole numbers of so many digits under any of its settings.
_MAX_DIGITS = 640


@dataclass(frozen=True)
class OfficialCheckpoint:
    """What one generation of the official search left."""

    shapes: Mapping[str, int]
    solution: tuple[float, ...]  # the flat vector, its meaning is in official.py
    step: int | None = None  # generation
    train_best: float | None = None  # mean reward on a bucket of 16 training prompts
    train_mean: float | None = None  # of the candidates of that generation
    val: float | None = None  # mean reward on the validation prompts
    sigma: float | None = None
    timestamp: int | None = None  # seconds since 1970

    @property
    def written(self) -> str:
        """When, as ISO 8601; empty where the file does not say."""
        if self.timestamp is None:
            return ""
        return datetime.datetime.fromtimestamp(self.timestamp, datetime.timezone.utc).isoformat()


def read_whole_number(digits: str) -> int | float:
    """For json.loads: a number too long for Python to read is infinite, and so refused by us."""
    return int(digits) if len(digits) <= _MAX_DIGITS else math.inf


def read_checkpoint(path: str | os.PathLike[str]) -> OfficialCheckpoint:
    """Read a checkpoint of any origin; OfficialCheckpointError for anything that is none."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise OfficialCheckpointError(
                f"The file {path} is too large for a checkpoint of the official code: choose a "
                "cmaes_step_NNNN.json."
            )
        data = path.read_bytes()
    except OSError as error:
        raise OfficialCheckpointError(
            f"The checkpoint {path} cannot be opened ({error.strerror or error}): check its name "
            "and folder."
        ) from error
    try:
        held = json.loads(data, parse_int=read_whole_number)
    except (ValueError, RecursionError) as error:
        raise OfficialCheckpointError(
            f"The file {path} is truncated or no JSON: copy it again or choose another."
        ) from error
    try:
        return _read(held)
    except OfficialCheckpointError as error:
        raise OfficialCheckpointError(f"{path}: {error}") from error


def write_checkpoint(
    path: str | os.PathLike[str], checkpoint: OfficialCheckpoint, overwrite: bool = False
) -> None:
    """Write `checkpoint` as the official code does, completely or not at all.

    Raises FileExistsError where `path` exists and `overwrite` is False, OSError where the disk is
    full or does not let us write.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"The file {path} exists already: choose another name or allow overwriting."
        )
    held = {
        "step": checkpoint.step,
        "train_best": checkpoint.train_best,
        "train_mean": checkpoint.train_mean,
        "val": checkpoint.val,
        "solution": list(checkpoint.solution),
        "shapes": dict(checkpoint.shapes),
        "sigma": checkpoint.sigma,
        "timestamp": checkpoint.timestamp,
    }
    save_atomically(path, json.dumps(held, indent=2, allow_nan=False).encode(), "checkpoint")


def _read(held: Any) -> OfficialCheckpoint:
    if not isinstance(held, dict):
        raise OfficialCheckpointError(
            "The file holds no JSON object: choose a cmaes_step_NNNN.json of the official code."
        )
    shapes, solution = held.get("shapes"), held.get("solution")
    if not isinstance(shapes, dict) or not isinstance(solution, list):
        raise OfficialCheckpointError(
            "The file has no 'solution' with its 'shapes': choose a cmaes_step_NNNN.json of the "
            "official code."
        )
    return OfficialCheckpoint(
        shapes=shapes,
        solution=_solution(shapes, solution),
        step=_whole(held.get("step")),
        train_best=_finite(held.get("train_best")),
        train_mean=_finite(held.get("train_mean")),
        val=_finite(held.get("val")),
        sigma=_finite(held.get("sigma")),
        timestamp=_whole(held.get("timestamp")),
    )


def _solution(shapes: dict[str, Any], solution: list[Any]) -> tuple[float, ...]:
    layout = read_layout(shapes)
    if len(solution) != layout.total:
        raise OfficialCheckpointError(
            f"The checkpoint's solution has {len(solution)} numbers where its shapes need "
            f"{layout.total}: use the file as the official code wrote it."
        )
    weights_from = layout.total - layout.members
    for index, value in enumerate(solution):
        number = _finite(value)
        low, high = (-MAX_WEIGHT, MAX_WEIGHT) if index >= weights_from else (LOWER, UPPER)
        if number is None or not low <= number <= high:
            what = "weight" if index >= weights_from else "coefficient"
            raise OfficialCheckpointError(
                f"Number {index} of the checkpoint's solution, a {what}, is {repr(value)[:40]} and "
                f"not a number from {low:g} to {high:g}: use the file as the official code wrote "
                "it."
            )
    return tuple(float(value) for value in solution)


def _finite(value: Any) -> float | None:
    """A finite number, or None for all else: NaN, -Infinity and null are in real checkpoints."""
    if type(value) not in (int, float):  # not isinstance: True is no 1
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer of 400 digits
        return None
    return number if math.isfinite(number) else None


def _whole(value: Any) -> int | None:
    """A step or a time: a whole number that a calendar could hold."""
    return value if type(value) is int and 0 <= value < 2**33 else None
