"""What one slice of a run does: batch after batch until its time is over or somebody waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import comfy.model_management

from ...calibri import stop_request
from ...calibri.yielding import YieldedError
from .. import runs
from ..album import Album
from ..best_so_far import CHOSEN, keep_recommended, save_best
from .cache_age import keep_young
from .flight import Flight
from .pace import Pace, PacedEvaluator
from .record import FINISHED, PAUSED
from .registry import settle
from .results import publish
from .run import Run

if TYPE_CHECKING:
    from ...calibri.outcome import GenerationSummary
    from ...calibri.session import Session

STOPPED_BY_COMMAND = "It was stopped on the command line."


def work(run: Run, flight: Flight, others_wait: Callable[[], bool]) -> None:
    """Advance `run` for one slice.

    Whatever the run's model, reward or journal raises comes through and leaves it resumable.
    """
    with run.lock:
        prepared, pace = run.prepared, run.pace
        if not run.goes_on or prepared is None or pace is None:
            flight.worked = True  # it was paused meanwhile
            return
        run.in_slice = True
    began = time.monotonic()
    keep_young()
    try:
        _Slice(run, pace, others_wait).advance()
        flight.worked = True
    except YieldedError:
        run.record.yields += 1
        flight.worked = True
    except comfy.model_management.InterruptProcessingException:
        flight.interrupted = True
        raise
    except BaseException as error:
        # The journal may be what failed: the next slice opens it anew.
        run.close_session()
        flight.error = str(error)
        raise
    finally:
        with run.lock:
            run.in_slice = False
            run.record.slices += 1
            run.record.progress.seconds += time.monotonic() - began
            run.save()
            settle(run)


class _Slice:
    """One slice of a run whose inputs are there."""

    def __init__(self, run: Run, pace: Pace, others_wait: Callable[[], bool]) -> None:
        assert run.prepared is not None
        self._run, self._prepared, self._pace = run, run.prepared, pace
        self._others_wait = others_wait

    def advance(self) -> None:
        """Batch after batch; at least one, so that a run goes on however busy ComfyUI is."""
        run = self._run
        until = time.monotonic() + run.record.slice_seconds
        with self._pace.looking(self._is_wanted):
            session = self._session()
            while self._advances(session):
                run.record.yields = 0
                self._note(session)
                self._heed()
                self._conclude_if_told(session)
                if self._is_wanted() or time.monotonic() >= until:
                    return
            self._note(session)
            self._finish(session)

    def _advances(self, session: Session) -> bool:
        """`session.advance()`, and the images it draws are this run's."""
        known = session.images
        try:
            return session.advance()
        finally:
            self._run.record.progress.drawn += session.images - known

    def _is_wanted(self) -> bool:
        """Whether somebody else wants the queue, or the run is to rest."""
        return not self._run.goes_on or self._others_wait()

    def _session(self) -> Session:
        """The run's session, opened where it is not."""
        from ...calibri.journal import Journal, JournalError
        from ...calibri.replay import ReplayError
        from ...calibri.session import Session

        run, prepared = self._run, self._prepared
        if run.session is None:
            path = run.folder / runs.JOURNAL
            if run.record.progress.images and not path.is_file():
                raise JournalError(
                    f"The journal {path} is gone: put it back to go on, or delete the run."
                )
            run.journal = Journal.open(path)
            stop_request.withdraw(run.folder)  # older than the run's going on
            if prepared.evaluator.preview is not None:
                prepared.evaluator.preview.remember(run.journal)
            try:
                run.session = Session(
                    prepared.config,
                    prepared.space,
                    prepared.evaluator,
                    run.journal,
                    on_generation=self._on_generation,
                    on_batch=self._on_batch,
                    versions=prepared.versions,
                )
            except ReplayError as error:
                run.record.replays = False
                raise ReplayError(
                    f"{error} For that, queue the workflow with if_changed set to "
                    "'new run from its result'."
                ) from error
            run.record.replays = True
        run.keep_settings()  # not before: another process may be at work on the run
        album = Album(run.folder, prepared)
        run.session.evaluator = PacedEvaluator(prepared.evaluator, self._pace, album)
        if not run.record.concluding:
            run.session.go_on()
            run.concluded = False
        self._conclude_if_told(run.session)
        return run.session

    def _heed(self) -> None:
        """Do what `comfyui-calibri stop` asks of a run, in whatever process that runs."""
        run = self._run
        wish = stop_request.asked(run.folder)
        if wish is None:
            return
        stop_request.withdraw(run.folder)
        with run.lock:
            if wish == stop_request.FINISH:
                run.record.concluding = True
            elif run.goes_on:
                run.change(PAUSED, STOPPED_BY_COMMAND)

    def _conclude_if_told(self, session: Session) -> None:
        """End the search with the generation that runs where that was asked for, once."""
        if self._run.record.concluding and not self._run.concluded:
            session.conclude()
            self._run.concluded = True

    def _on_generation(self, summary: GenerationSummary) -> None:
        self._run.generations.sigmas[summary.generation] = summary.sigma
        self._run.record.progress.warning = summary.warning
        self._run.news = "result"

    def _on_batch(self, done: int, total: int) -> None:
        self._run.news = self._run.news or "batch"

    def _note(self, session: Session) -> None:
        """Write down how far the run is."""
        run, best = self._run, session.best()
        with run.lock:
            progress = run.record.progress
            whole = session.generation if session.phase != "generation" else session.generation - 1
            progress.generation = whole
            progress.generations = self._prepared.config.generations
            progress.images, progress.total = session.images, session.total
            progress.phase = session.phase
            progress.pilot = "" if session.pilot is None else session.pilot.sentence
            if best is None or session.phase in CHOSEN:
                return
            if (best.generation, asdict(best.gain)) == (progress.best_generation, progress.gain):
                return
        save_best(run.id, self._prepared, best)
        with run.lock:
            progress.best_generation = best.generation
            progress.reward, progress.plain = best.reward, best.plain
            progress.gain = asdict(best.gain)
            run.news = "result"
            run.save()

    def _finish(self, session: Session) -> None:
        """Save what the run recommends; the report's pictures are drawn for it."""
        from ..calibration_result import PICTURED, conclude

        run, outcome = self._run, session.outcome
        assert outcome is not None
        assert run.journal is not None
        # Its pictures make room too, though those drawn so far are drawn again.
        self._pace.decision.begin(2 * PICTURED)
        result = conclude(self._prepared, run.id, outcome, run.journal)
        self._pace.decision.end()
        keep_recommended(run.id)
        publish(run)
        with run.lock:
            progress = run.record.progress
            progress.generation = outcome.generations
            progress.total = progress.images
            progress.best_generation = outcome.generation
            progress.reward, progress.plain = outcome.after.mean, outcome.before.mean
            progress.gain = asdict(outcome.gain)
            run.record.ended_with = self._prepared.config.generations
            config = self._prepared.config  # a judge that failed is asked again when the run is
            judged = {n: m for n, m in config.judges.items() if n not in outcome.failed_judges}
            run.record.ending = replace(config, judges=judged).ending
            run.record.ended_early = outcome.stopped is not None
            run.record.verdict = result.text
            if run.goes_on:
                run.change(FINISHED)
