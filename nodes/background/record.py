"""What is written down about a run beside its journal: `run.json`, whole or as it was before."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...calibri.atomic_file import write_atomically

FILE = "run.json"
SCHEMA = 1

RUNNING, PAUSED, INTERRUPTED = "running", "paused", "interrupted"
STOPPED, FINISHED = "stopped", "finished"
STATES = (RUNNING, PAUSED, INTERRUPTED, STOPPED, FINISHED)


@dataclass
class Progress:
    """How far a run was when it was last looked at; rewards are on held-out prompts."""

    generation: int = 0
    generations: int = 0
    images: int = 0
    total: int = 0
    phase: str = "validation"
    seconds: float = 0.0
    """Of its slices, all told."""
    drawn: int = 0
    """Images of its slices; `images` counts those of Calibrate under the same name too."""
    best_generation: int | None = None
    """The generation of the best validated mean, None before the first validation."""
    reward: float | None = None
    """Of the best so far; in a finished run, of the preset, on samples that no choice has seen."""
    plain: float | None = None
    gain: dict[str, float] | None = None
    """mean, low and high of the paired gain, with its 95 % interval."""
    pilot: str = ""
    """What the run's first generations say that it will cost and gain, once they are over."""
    warning: str = ""
    """What its last generations say against the reward."""


@dataclass
class Record:
    """A run as `run.json` holds it; nothing in it is secret."""

    id: str
    title: str
    state: str = RUNNING
    reason: str = ""
    """Why the run rests, in words; empty where its user wished it."""
    created: float = 0.0
    """Seconds since 1970, as `queued`, the run's place among those that wait."""
    queued: float = 0.0
    asked: str = ""
    """A digest of the settings that were asked for, before another run's result was added."""
    idle_seconds: float = 5.0
    slice_seconds: float = 60.0
    slices: int = 0
    longest_wait: float = 0.0
    """Seconds that a prompt of the user's waited for a slice, at most."""
    interrupts: int = 0
    """Slices that were cancelled in a row."""
    yields: int = 0
    """Batches that were given up for others in a row."""
    concluding: bool = False
    """Whether the search is to end with the generation that runs."""
    replays: bool = True
    """Whether the search recomputed from the journal was the journal's, when last tried."""
    ended_with: int | None = None
    """The budget in generations of a finished run."""
    ending: list[str] = field(default_factory=list)
    """What was asked of a finished run's end (`RunConfig.ending`)."""
    ended_early: bool = False
    """Whether a finished run's search ended before its budget, by itself."""
    verdict: str = ""
    """What a finished run found, in words."""
    preset: str | None = None
    """The preset's name in models/calibri, once the run has ended."""
    prompt: dict[str, Any] | None = None
    """What makes the run's inputs: its node and all above it, as ComfyUI's API takes them."""
    node: str = ""
    """The id of the run's node in `prompt`."""
    withheld: list[str] = field(default_factory=list)
    """Inputs that were not stored because they may be secret, as node.input."""
    progress: Progress = field(default_factory=Progress)

    def save(self, folder: Path) -> None:
        """Write `run.json` in the run's folder, which must be there; OSError where that fails."""
        values = {"schema": SCHEMA, **dataclasses.asdict(self)}
        text = json.dumps(values, indent=1, ensure_ascii=False)
        write_atomically(folder / FILE, text.encode())

    @classmethod
    def load(cls, folder: Path) -> Record | None:
        """The record in a run's folder; None where there is none that this version understands."""
        try:
            values = json.loads((folder / FILE).read_text(encoding="utf-8"))
            if values.pop("schema") != SCHEMA or values["state"] not in STATES:
                return None
            values["progress"] = Progress(**values["progress"])
            return cls(**{**values, "id": folder.name})
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
