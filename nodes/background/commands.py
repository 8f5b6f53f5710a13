"""What a person can ask of a run: pause, resume, stop, finish, save."""

from __future__ import annotations

from collections.abc import Callable

from .record import FINISHED, INTERRUPTED, PAUSED, RUNNING, STOPPED
from .registry import Registry
from .results import publish
from .run import Run


class CommandError(RuntimeError):
    """A run's state does not allow what was asked; the message says why."""


def pause(registry: Registry, run: Run) -> None:
    """Rest, with everything kept."""
    _check(run, "paused", RUNNING)
    registry.rest(run, PAUSED)


def resume(registry: Registry, run: Run) -> None:
    """Go on, behind the runs that go on already. A conclusion is taken back."""
    registry.claim(run)
    record = run.record
    if record.state == FINISHED and record.progress.generation >= record.progress.generations:
        raise CommandError(
            f"The run {run.id!r} is finished: raise generations in its workflow and queue it to go "
            "on."
        )
    _check(run, "resumed", PAUSED, INTERRUPTED, STOPPED, FINISHED)
    registry.queue(run, concluding=False if record.state == FINISHED else None)


def stop(registry: Registry, run: Run) -> None:
    """End now; the best so far becomes the preset, and the models are let go."""
    if not run.goes_on:
        registry.claim(run)
    _check(run, "stopped", RUNNING, PAUSED, INTERRUPTED)
    registry.rest(run, STOPPED)


def finish(registry: Registry, run: Run) -> None:
    """End the search with the generation that runs, then compare the finalists."""
    registry.claim(run)
    _check(run, "finished", RUNNING, PAUSED, INTERRUPTED, STOPPED)
    registry.queue(run, concluding=True)


def save(registry: Registry, run: Run) -> None:
    """Copy the best so far to models/calibri under the next free number."""
    if not run.goes_on:
        registry.claim(run)  # another ComfyUI's run has a newer record than ours
    publish(run)
    if run.record.preset is None:
        raise CommandError(
            f"The run {run.id!r} has found nothing better than the plain model yet: save it after "
            "a validation that has."
        )


COMMANDS: dict[str, Callable[[Registry, Run], None]] = {
    "pause": pause,
    "resume": resume,
    "stop": stop,
    "finish": finish,
    "save": save,
}


def _check(run: Run, word: str, *states: str) -> None:
    if run.record.state not in states:
        raise CommandError(f"The run {run.id!r} is {run.record.state} and cannot be {word}.")
