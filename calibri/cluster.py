"""A cluster as one evaluator: whole batches travel to workers, and come back as they are done.

Batches are what is journalled, so what a worker draws is what a single process would have drawn of
equal shapes on an equal device, and the journal, whose one writer is the driver, does not see who
drew it. A worker that dies or hangs is replaced and its batch drawn again (`worker_pool.py`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from . import cluster_worker
from .cluster_room import Needs
from .cluster_worker import Answer, EvaluatorFactory, Task, WorkerError
from .evaluation import Batch, BatchTooLargeError, Floats, Sample
from .worker_pool import Check, Landed, WorkerPool

TICK = 0.5  # seconds after which it looks for hung workers, and for whoever wants it to stop
MOST_LOSSES = 3  # workers that one task may take along


def unlike(first: Any, told: Any) -> str:
    """A worker is taken that says the same of itself as the first one."""
    alike = first is None or first == told
    return "" if alike else "its files, or what it draws with, are not those of the first worker"


class ClusterEvaluator:
    """Workers behind the protocol of a `ConcurrentEvaluator`; `close` ends them.

    `factory` makes a worker's evaluator, `wanted` workers of them or as many as there is room for;
    `told` is what the first one says of itself, and workers that `check` has something against are
    let go. Raises WorkerError where no worker can be started, or where a batch ends every worker.
    """

    def __init__(
        self,
        factory: EvaluatorFactory,
        needs: Needs,
        wanted: int | None = None,
        say: Callable[[str], None] = lambda _: None,
        check: Check = unlike,
    ) -> None:
        self._pool = WorkerPool(factory, needs, wanted, say, check)
        self._began = time.monotonic()
        self._flying: list[Task] = []
        self._landed: dict[Batch, Answer] = {}
        self._losses: Counter[Batch] = Counter()
        self._asked: tuple[Any, ...] = ()
        try:
            while not self._pool.started:
                self._pool.look(TICK)
        except BaseException:  # Ctrl-C too: nobody has this evaluator yet, to close it
            self.close()
            raise

    @property
    def told(self) -> Any:
        """What the workers' evaluator says of itself."""
        return self._pool.told

    @property
    def wanted(self) -> int:
        """Workers that there are, or are to be."""
        return self._pool.wanted

    @property
    def places(self) -> list[str]:
        """Where workers are that have started."""
        return self._pool.places

    @property
    def busy_seconds(self) -> float:
        """That workers have drawn, all together."""
        return self._pool.busy_seconds

    def plan(self, candidates: int, bucket: Sequence[Sample]) -> list[Batch]:
        """As the first worker that is free plans it; one with less memory has batches halved."""
        batches: list[Batch] = self._alone(cluster_worker.plan(candidates, bucket))
        return batches

    def answer(
        self, pending: Sequence[Batch], vectors: Floats, bucket: Sequence[Sample], judge: str
    ) -> tuple[Batch, Floats]:
        """Whichever of `pending` is done first, and its rewards, or a judge's values.

        The others go on meanwhile. BatchTooLargeError says which batch it was.
        """
        asked = (vectors.tobytes(), tuple(bucket), judge)
        if asked != self._asked:
            # What still flies is of an evaluation that nobody waits for.
            self._asked, self._flying, self._landed = asked, [], {}
            self._losses.clear()
        left = set(pending)
        while True:
            done = next((batch for batch in self._landed if batch in left), None)
            self._assign(pending, vectors, bucket, judge)
            if done is not None:
                return done, self._values(done)
            for landed in self._pool.look(TICK):
                self._land(landed)

    def run(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample]) -> Floats:
        """Rewards [len(batch)]."""
        rewards: Floats = self._alone(cluster_worker.score(batch, vectors, bucket, ""))
        return rewards

    def judge(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample], judge: str) -> Floats:
        """As `run`, by another reward."""
        values: Floats = self._alone(cluster_worker.score(batch, vectors, bucket, judge))
        return values

    def images(self, vectors: Floats, bucket: Sequence[Sample]) -> NDArray[Any]:
        """Pictures [K, len(bucket), H, W, 3], by one worker."""
        pictures: NDArray[Any] = self._alone(cluster_worker.images(vectors, bucket))
        return pictures

    def close(self) -> None:
        """End the workers."""
        self._pool.close()

    def _assign(
        self, pending: Sequence[Batch], vectors: Floats, bucket: Sequence[Sample], judge: str
    ) -> None:
        """Give idle workers batches that nobody draws yet."""
        begun = {task.batch for task in self._flying} | self._landed.keys()
        for batch in pending:
            if not self._pool.idle:
                return
            if batch not in begun:
                task = cluster_worker.score(batch, vectors, bucket, judge)
                self._flying.append(task)
                self._pool.assign(task)

    def _land(self, landed: Landed) -> None:
        # By identity: a task holds arrays.
        if not any(task is landed.task for task in self._flying):
            return  # nobody waits for it any more
        self._flying = [task for task in self._flying if task is not landed.task]
        batch = landed.task.batch
        assert batch is not None
        if landed.answer is not None:
            self._landed[batch] = landed.answer
            return
        self._losses[batch] += 1
        if self._losses[batch] >= MOST_LOSSES:
            self._landed[batch] = _given_up(batch, landed.lost)

    def _values(self, batch: Batch) -> Floats:
        answer = self._landed.pop(batch)
        try:
            values: Floats = answer.get()
        except BatchTooLargeError as error:
            raise BatchTooLargeError(str(error), images=len(batch)) from error
        return values

    def _alone(self, task: Task) -> Any:
        """A task's value, by the first worker that is free; batches that fly go on."""
        losses = 0
        assigned = False
        while True:
            if not assigned and self._pool.idle:
                self._pool.assign(task)
                assigned = True
            for landed in self._pool.look(TICK):
                if landed.task is not task:
                    self._land(landed)
                elif landed.answer is not None:
                    return landed.answer.get()
                else:
                    losses, assigned = losses + 1, False
                    if losses >= MOST_LOSSES:
                        raise WorkerError(_ended_workers(losses, landed.lost))


def _given_up(batch: Batch, why: str) -> Answer:
    """A batch that took workers along: smaller it may fit their memory."""
    words = _ended_workers(MOST_LOSSES, why)
    kind = BatchTooLargeError if len(batch) > 1 and "memory" in why else WorkerError
    return Answer(kind=kind.__name__, message=words)


def _ended_workers(losses: int, why: str) -> str:
    return (
        f"{losses} workers were lost on the same images ({why}): look at their logs. The run goes "
        "on where it stopped when it is called again."
    )
