"""What runs in a worker of a cluster: one evaluator, made where it draws, and its answers.

Plain Python: `worker_pool.py` makes an actor of it. An error is an answer too, since the one who
asked decides what it means; only a worker that dies gives none.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .evaluation import (
    Batch,
    BatchTooLargeError,
    Evaluator,
    Floats,
    ImageTooLargeError,
    RewardError,
    Sample,
)

EvaluatorFactory = Callable[[], tuple[Evaluator, Any]]
"""Makes a worker's evaluator, and what tells it from others: the driver's to read. Is pickled, so a
function of a module or an instance of one's class."""

_PACK = __name__.partition(".")[0]
# What the driver raises again as what it was; anything else becomes a WorkerError.
KINDS: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (BatchTooLargeError, ImageTooLargeError, RewardError, ValueError, OSError)
}


class WorkerError(RuntimeError):
    """A worker's evaluator raised something; the message says what, and where."""


@dataclass(frozen=True)
class Task:
    """One question to an evaluator: its `method`, and what it is asked."""

    method: str
    arguments: tuple[Any, ...]

    @property
    def batch(self) -> Batch | None:
        """The batch that is drawn, if one is."""
        return self.arguments[0] if self.method in ("run", "judge") else None


@dataclass(frozen=True)
class Answer:
    """What came of a task: `value`, or an error by its kind and its message."""

    value: Any = None
    kind: str = ""
    message: str = ""
    seconds: float = 0.0

    def get(self) -> Any:
        """The value, or the error raised as what it was."""
        if self.kind:
            raise KINDS.get(self.kind, WorkerError)(self.message)
        return self.value


class Worker:
    """Holds one evaluator; `start` makes it, and loads its models."""

    def __init__(self) -> None:
        self._evaluator: Evaluator | None = None

    def where(self) -> str:
        """The machine and the process; answers as soon as the worker lives."""
        return f"{platform.node()}, process {os.getpid()}"

    def start(self, factory: EvaluatorFactory) -> Answer:
        """Make the evaluator; the value is what tells it from others."""

        def make() -> Any:
            self._evaluator, told = factory()
            return told

        return _answered(make)

    def do(self, task: Task) -> Answer:
        """Ask the evaluator."""
        return _answered(lambda: getattr(self._evaluator, task.method)(*task.arguments))


def plan(candidates: int, bucket: Sequence[Sample]) -> Task:
    """`Evaluator.plan`."""
    return Task("plan", (candidates, tuple(bucket)))


def score(batch: Batch, vectors: Floats, bucket: Sequence[Sample], judge: str) -> Task:
    """`Evaluator.run`, or with a judge `Evaluator.judge`."""
    drawn = (batch, vectors, tuple(bucket))
    return Task("judge", (*drawn, judge)) if judge else Task("run", drawn)


def images(vectors: Floats, bucket: Sequence[Sample]) -> Task:
    """`Evaluator.images`."""
    return Task("images", (vectors, tuple(bucket)))


def _answered(make: Callable[[], Any]) -> Answer:
    began = time.monotonic()
    try:
        value = make()
    except Exception as error:
        # A class of its own would have to be importable where it is unpickled.
        named = next((c.__name__ for c in type(error).__mro__ if c.__name__ in KINDS), "")
        kind, ours = named or type(error).__name__, type(error).__module__.startswith(_PACK)
        # What others raise is often no sentence: "'key'".
        words = str(error) if named or ours else f"{type(error).__name__}: {error}"
        return Answer(kind=kind, message=words, seconds=time.monotonic() - began)
    return Answer(value, seconds=time.monotonic() - began)
