"""A calibration that advances one batch at a time, each result journalled before the next begins.

A session answers the course of its run (`course.py`): from the journal where that holds the answer,
else batch by batch with the evaluator. The evaluator and the callbacks are called outside the
course, so whatever they raise (an interrupt, a reward that is gone, no memory) leaves the session
where it was, and the same batch is next. What a session computed it never holds alone: one on the
same journal, in another process or after a crash, goes on at the same place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .batches import LARGER_BATCHES, OUT_OF_MEMORY, limited, plan_batches, too_many
from .budget import CONCLUDED, FINISHED, STOPPED_EARLY, WENT_ON, is_concluded, stops_after
from .configuration import RunConfig, check_same_run, library_versions
from .course import Course, Request, Steps
from .evaluation import Batch, BatchTooLargeError, Evaluator, Floats
from .journal import Evaluation, Journal, JournalError
from .judging import WITHOUT_JUDGE, JudgeError, scored
from .outcome import Best, GenerationSummary, Outcome
from .replay import check_replay
from .yielding import YieldedError

if TYPE_CHECKING:
    from .ensemble_space import EnsembleSpace
    from .pilot import Pilot


class Session:
    """A calibration that advances one batch at a time; between two batches it may rest for days.

    A new session stands where its journal ends. `on_generation` hears each generation that ends
    now, `on_batch(done, total)` counts images, those of earlier sessions included; a generation
    whose callback raised is told again. `conclude` may be called from another thread at any time,
    everything else while no other call runs. `versions` are the host's, beside those of the
    libraries (`library_versions`): events keep them.

    Raises JournalError where the journal belongs to another configuration and ReplayError where its
    search cannot be recomputed.
    """

    def __init__(
        self,
        config: RunConfig,
        space: EnsembleSpace,
        evaluator: Evaluator,
        journal: Journal,
        on_generation: Callable[[GenerationSummary], None] | None = None,
        on_batch: Callable[[int, int], None] | None = None,
        versions: Mapping[str, str] | None = None,
    ) -> None:
        self.evaluator = evaluator
        """May be replaced between advances: what it is made of may have been loaded again."""
        self.outcome: Outcome | None = None
        """What the run recommends, once `advance` has returned False."""
        self._config, self._space, self._journal = config, space, journal
        self._on_generation, self._on_batch = on_generation, on_batch
        self._versions = {**library_versions(), **(versions or {})}
        self._failure: BaseException | None = None
        check_same_run(journal, config, space)
        self._add_event("resumed" if journal.events() else "started")
        with self._recorded(), self._fatal():
            self._too_large = too_many(journal.shortages())
            self._begin()

    def advance(self) -> bool:
        """Run one batch, and all that follows from it for free; False once there is an outcome.

        What the evaluator or a callback raises comes through; the next call tries again. After an
        error of the journal itself every call raises JournalError: open the journal anew.
        """
        self._check_usable()
        with self._recorded():
            self._tell()
            if self.outcome is None:
                self._run_batch()
                self._tell()
        return self.outcome is None

    def best(self) -> Best | None:
        """The best validated mean so far, None before the first validation is whole."""
        return self._course.best()

    def conclude(self) -> None:
        """End the search with the generation that runs; what is left are its finalists.

        A run's first generation is never left out. Kept in the journal, until `go_on` or a session
        with a larger budget.
        """
        self._check_usable()
        self._add_event(CONCLUDED)
        self._course.concluded = True

    def go_on(self) -> None:
        """Take a conclusion back: the search goes on as if it had not been, budget permitting."""
        self._check_usable()
        if not self._course.concluded:
            return
        with self._recorded(), self._fatal():
            self._add_event(WENT_ON)
            self._course.concluded = False
            if self._course.search_ended:
                self._begin()

    @property
    def generation(self) -> int:
        """The generation that runs, or that the search ended with; 0 before the first."""
        return self._course.generation

    @property
    def images(self) -> int:
        """Images that have their reward."""
        return self._images

    @property
    def total(self) -> int:
        """Images of the whole run, as far as that is known; never less than `images`."""
        return max(self._course.images(), self._images)

    @property
    def pilot(self) -> Pilot | None:
        """What the run is expected to cost and to gain, once its first generations are over."""
        return self._course.pilot

    @property
    def phase(self) -> str:
        """What runs: "validation", "generation", "selection", "confirmation" or "judging"; or
        "done"."""
        return self._phase

    def _begin(self) -> None:
        """Stand where the journal ends: recompute the course from it."""
        self.outcome = None
        self._images = 0
        self._ran = False  # whether a batch ran since the last summary
        self._summary: GenerationSummary | None = None
        self._end_told = self._stopped = False
        events = self._journal.events()
        self._course = Course(
            self._config,
            self._space,
            lambda generation: self._journal.has_evaluation("generation", generation),
            stops_after=stops_after(events, self._config),
        )
        self._course.concluded = is_concluded(events, self._config)
        self._steps: Steps = self._course.steps()
        self._step(None)

    def _step(self, answer: Evaluation | None) -> None:
        """Answer the course, then all that the journal can answer, up to what is to be done."""
        while True:
            try:
                wanted = self._steps.send(answer)
            except StopIteration as end:
                found: Outcome = end.value
                self.outcome, self._phase = found, "done"
                self._add_event(FINISHED, recommended=found.generation, searched=found.generations)
                return
            answer = None
            if self._course.stopped is not None and not self._stopped:
                self._stopped = True
                self._add_event(STOPPED_EARLY)
            if isinstance(wanted, GenerationSummary):
                if self._ran:
                    self._summary = wanted
                    return
                continue
            # The finalists' later rounds have a number.
            self._request, self._phase = wanted, wanted.role.split()[0]
            self._open = self._journal.evaluation(wanted.role, wanted.generation)
            if self._open is None:
                return
            check_replay(self._journal, self._open, wanted.vectors, self._versions)
            self._images += self._open.done
            self._pending = list(self._open.pending)
            if self._pending:
                return
            answer = self._open

    def _run_batch(self) -> None:
        if self._open is None and self._is_left_out(self._request):
            with self._fatal():
                self._step(None)
            if self.outcome is not None:
                return
        evaluation = self._open or self._plan(self._request)
        try:
            batch, rewards, seconds = self._rewarded(evaluation)
        except JudgeError as error:
            with self._fatal():
                judge = self._request.judge
                self._journal.add_event(WITHOUT_JUDGE, {"judge": judge, "text": str(error)})
                self._course.failed_judges[judge] = str(error)
                self._step(None)
            return
        with self._fatal():
            self._journal.add_result(evaluation, batch, rewards, seconds)
            self._pending.remove(batch)
            self._images += len(batch)
            self._ran = True
            if not self._pending:
                self._step(self._journal.evaluation(evaluation.role, evaluation.generation))
        if self._on_batch is not None:
            self._on_batch(self._images, self.total)

    def _is_left_out(self, request: Request) -> bool:
        """Whether a conclusion came before this generation began."""
        return self._course.concluded and request.role == "generation" and request.generation > 1

    def _plan(self, request: Request) -> Evaluation:
        self._note_room()
        batches = plan_batches(
            self.evaluator, len(request.vectors), request.bucket, self._too_large
        )
        with self._fatal():
            self._journal.add_evaluation(
                request.role, request.generation, request.vectors, request.bucket, batches
            )
            evaluation = self._journal.evaluation(request.role, request.generation)
            assert evaluation is not None
            self._open, self._pending = evaluation, list(evaluation.pending)
        return evaluation

    def _note_room(self) -> None:
        """See how many images are to be tried at once, which may be more again."""
        limit = too_many(self._journal.shortages())
        if limit != self._too_large:
            with self._fatal():
                self._journal.add_event(LARGER_BATCHES, {"below": limit})
        self._too_large = limit

    def _rewarded(self, evaluation: Evaluation) -> tuple[Batch, Floats, float]:
        """A batch with its rewards and seconds, halved until it fits in memory."""
        judge = self._request.judge
        while True:
            started = time.monotonic()
            try:
                answer = scored(self.evaluator, self._pending, evaluation, judge, self._config)
                return *answer, time.monotonic() - started
            except BatchTooLargeError as error:
                images = error.images or len(self._pending[0])
                if images == 1:
                    raise
            with self._fatal():
                self._pending = limited(self._pending, images)
                self._journal.replace_plan(evaluation, self._pending, too_large=images)
                self._too_large = too_many(self._journal.shortages())
                self._journal.add_event(OUT_OF_MEMORY, {"images": images})

    def _tell(self) -> None:
        """Tell the callbacks what they have not heard, and go on to what is to be done."""
        while self._summary is not None:
            if self._on_generation is not None:
                self._on_generation(self._summary)
            self._summary, self._ran = None, False
            with self._fatal():
                self._step(None)
        if self.outcome is not None and not self._end_told:
            if self._on_batch is not None:
                self._on_batch(self.total, self.total)
            self._end_told = True

    def _add_event(self, kind: str, **more: int) -> None:
        budget = {"generations": self._config.generations, "max_seconds": self._config.max_seconds}
        self._journal.add_event(kind, {"versions": self._versions, **budget, **more})

    @contextmanager
    def _recorded(self) -> Iterator[None]:
        try:
            yield
        except YieldedError:  # thousands in a run, and none of them means anything
            raise
        except BaseException as error:
            detail = {"error": type(error).__name__, "text": str(error)}
            try:
                self._journal.add_event("interrupted", detail)
            except Exception as second:  # a full disk, say: the first error is the one to see
                error.__context__ = second
            raise

    @contextmanager
    def _fatal(self) -> Iterator[None]:
        """What is raised within may have left the session half way: it can only be opened anew."""
        try:
            yield
        except BaseException as error:
            self._failure = error
            raise

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise JournalError(
                f"The calibration of {self._journal.path} stopped with an error "
                f"({self._failure}): mend that and open it anew; it goes on where it stopped."
            )
