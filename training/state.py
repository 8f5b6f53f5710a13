"""A run's state on disk: whole or not there, so that a killed run goes on to the same bits."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..calibri.atomic_file import write_atomically

STATE = "training.pt"
_SCHEMA = 1


class TrainingError(ValueError):
    """A training that cannot begin or go on: one sentence with what is wrong and the mend."""


class StateFile:
    """`training.pt` in a folder, written by way of a temporary file.

    `about` is all that makes this run this run, JSON values: another run's state is refused. A
    folder of None keeps nothing.
    """

    def __init__(self, folder: Path | None, about: Mapping[str, Any]) -> None:
        self._path = None if folder is None else folder / STATE
        self._about = json.dumps(about, sort_keys=True)

    def read(self, device: torch.device) -> dict[str, Any] | None:
        """The state that lies there, None where there is none.

        Raises TrainingError for a file of another run or version, or that cannot be read.
        """
        if self._path is None or not self._path.exists():
            return None
        try:
            held = torch.load(self._path, map_location=device, weights_only=True)
            about, schema, state = held["about"], held["schema"], held["state"]
        except Exception as error:  # whatever unpickling says of a broken file
            raise TrainingError(
                f"The training's state {self._path} cannot be read ({error}): move it away to "
                "begin anew."
            ) from error
        if schema != _SCHEMA or about != self._about:
            raise TrainingError(
                f"The training's state {self._path} is of other settings, other pictures, another "
                "model or another version: give this run another name, or take the settings back."
            )
        return dict(state)

    def write(self, state: Mapping[str, Any]) -> None:
        """Keep `state` (tensors, numbers, words, lists and dicts of them) in the old one's place.

        Raises TrainingError where it cannot be written, as on a full disk; the old one stays.
        """
        if self._path is None:
            return
        data = io.BytesIO()
        torch.save({"state": dict(state), "about": self._about, "schema": _SCHEMA}, data)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, data.getvalue())
        except OSError as error:
            mend = "free some space" if error.errno == errno.ENOSPC else "check the folder"
            raise TrainingError(
                f"The training's state {self._path} could not be kept ({error.strerror}): {mend} "
                "and start the run again; it goes on from the state before."
            ) from error
