"""Workers of a cluster that die, hang or wait when a test wants it; what the driver says of them.

Apart from the tests, so that a driver in a process of its own can use it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfyui_calibri.calibri.cluster import ClusterEvaluator
from comfyui_calibri.calibri.cluster_room import Needs
from comfyui_calibri.calibri.likeness import Likeness

from .exact_run import ExactEvaluator

PATIENCE = 180.0  # seconds, on a busy machine


class Troubled(ExactEvaluator):
    """Draws as the exact run does, and does what the files of `folder` say, each once."""

    def __init__(self, folder: Path, memory: int = 10**9) -> None:
        super().__init__(batch=13, memory=memory)
        self.folder, self.drawn = folder, 0

    def run(self, batch: Any, vectors: Any, bucket: Any) -> Any:
        if self._told("die") or (self.folder / "die always").exists():
            os._exit(1)
        if self._told("hang"):
            time.sleep(PATIENCE)
        # All workers wait here, after a batch of each.
        while self.drawn and (self.folder / "wait").exists():
            time.sleep(0.02)
        self.drawn += 1
        return super().run(batch, vectors, bucket)

    def _told(self, word: str) -> bool:
        try:
            (self.folder / word).rename(self.folder / f"{word} done by {os.getpid()}")
        except FileNotFoundError:  # or another worker was quicker
            return False
        return True


@dataclass(frozen=True)
class Told:
    """What a worker says of itself."""

    surroundings: dict[str, str]
    record: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Factory:
    folder: Path
    memory: int = 10**9

    def __call__(self) -> tuple[Troubled, Told]:
        if (self.folder / "broken").exists():
            raise ValueError("The model's file is not there.")
        try:
            (self.folder / "other").rename(self.folder / "other is there")
            torch = "2.10.0"
        except FileNotFoundError:
            torch = "2.11.0"
        return Troubled(self.folder, self.memory), Told(surroundings={"torch": torch})


class Trial:
    """One run's folder, and what its pool said."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.journal = folder, folder / "journal.sqlite"
        self.said: list[str] = []
        self.heard: Callable[[str], None] = lambda _: None
        self.so_far: dict[str, str] = {}
        """What the run was drawn with before."""

    def say(self, text: str) -> None:
        self.said.append(text)
        self.heard(text)

    def workers(self, wanted: int | None = 2, **options: Any) -> ClusterEvaluator:
        needs = Needs(
            cpus=options.pop("cpus", 1.0), batch_seconds=options.pop("batch_seconds", PATIENCE)
        )
        likeness = Likeness(lambda _: self.so_far, mixed=options.pop("mixed", False), say=self.say)
        factory = Factory(self.folder, **options)
        return ClusterEvaluator(factory, needs, wanted, self.say, likeness)

    def ready(self) -> int:
        return sum("is ready" in text for text in self.said)
