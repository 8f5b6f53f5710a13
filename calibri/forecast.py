"""What a run will cost, before it starts or while it rests: images, hours, money.

Images follow from the run's course (`course.py`), as far as its pilot has chosen them. Seconds are
measured, and on several workers follow from a small queueing model: a generation is a set of B
equal batches that W workers take from one queue, and it ends with its last batch.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .budget import is_concluded, stops_after
from .configuration import RunConfig
from .course import Course, Request
from .journal import Journal

if TYPE_CHECKING:
    from .ensemble_space import EnsembleSpace


@dataclass(frozen=True)
class Forecast:
    """What a run costs, at most: it may end early. Seconds and money are of what is left."""

    images: int
    drawn: int
    """Of these, already."""
    calls: int
    """Of the network for one image."""
    seconds_per_image: float
    """On one worker."""
    workers: int
    efficiency: float
    """What a worker of several draws in a second, beside one that is alone."""
    price: float
    """Of a worker's hour, in any currency."""

    @property
    def seconds(self) -> float:
        """Wall time of what is left."""
        left = max(self.images - self.drawn, 0)
        return left * self.seconds_per_image / (self.workers * self.efficiency)

    @property
    def cost(self) -> float:
        """Of what is left."""
        return self.seconds / 3600 * self.workers * self.price

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "seconds": self.seconds, "cost": self.cost}


def expected_images(
    config: RunConfig, space: EnsembleSpace, journal: Journal | None
) -> tuple[int, int]:
    """Images of a run at most, and how many its journal has; None before there is one."""
    if journal is None or journal.config() is None:
        return Course(config, space, lambda _: False).images(), 0
    events = journal.events()
    course = Course(
        config,
        space,
        lambda generation: journal.has_evaluation("generation", generation),
        stops_after(events, config),
    )
    course.concluded = is_concluded(events, config)
    _replay(course, journal)
    drawn = sum(evaluation.done for evaluation in journal.evaluations())
    return max(course.images(), drawn), drawn


def measured_seconds(journal: Journal) -> float | None:
    """Wall seconds for an image in the last whole generation, None before there is one."""
    last = journal.evaluation("generation", journal.last_generation())
    if last is not None and last.pending:
        last = journal.evaluation("generation", last.generation - 1)
    return None if last is None or not last.done else last.seconds / last.done


def queue_efficiency(
    batches: int, workers: int, seconds: float = 1.0, overhead: float = 0.0
) -> float:
    """The share of their time that `workers` draw, in generations of `batches` equal batches.

    A batch takes `seconds` and its way there and back `overhead`, in which its worker rests.
    """
    rounds = -(-batches // workers)
    return batches * seconds / (workers * rounds * (seconds + overhead))


def makespan(batches: int, seconds: Sequence[float]) -> float:
    """Wall time of a generation of `batches` on workers that each need `seconds` for one.

    Whoever is free takes the next, as the cluster does: a slow one may hold up the end.
    """
    free = [(0.0, worker) for worker in range(len(seconds))]
    heapq.heapify(free)
    end = 0.0
    for _ in range(batches):
        at, worker = heapq.heappop(free)
        end = max(end, at + seconds[worker])
        heapq.heappush(free, (at + seconds[worker], worker))
    return end


def _replay(course: Course, journal: Journal) -> None:
    """Take a course as far as its journal has the answers."""
    steps = course.steps()
    try:
        wanted = next(steps)
        while True:
            answer = None
            if isinstance(wanted, Request):
                answer = journal.evaluation(wanted.role, wanted.generation)
                if answer is None or answer.pending:
                    return
            wanted = steps.send(answer)
    except StopIteration:
        return
