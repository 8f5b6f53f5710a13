"""What a person can ask of a run: pause, resume, stop, finish, save; of one that others work on, to
stop, to finish and to save."""

from __future__ import annotations

from collections.abc import Callable

from ...calibri import stop_request
from .observed import Observed
from .record import FINISHED, INTERRUPTED, PAUSED, RUNNING, STOPPED
from .registry import Registry
from .results import publish, published
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
    _check_saved(run.id, run.record.preset)


def stop_other(run: Observed) -> None:
    """Cancel the prompt that works on a run, or ask another process to stop after its batch."""
    foreground = run.foreground
    if foreground is not None:
        foreground.interrupt()
    else:
        _ask(run, stop_request.STOP)


def finish_other(run: Observed) -> None:
    """Ask whoever works on a run to end its search with the generation that runs."""
    _ask(run, stop_request.FINISH)


def save_other(run: Observed) -> None:
    """As `save`."""
    run.preset = published(run.id)
    _check_saved(run.id, run.preset)


COMMANDS: dict[str, Callable[[Registry, Run], None]] = {
    "pause": pause,
    "resume": resume,
    "stop": stop,
    "finish": finish,
    "save": save,
}
COMMANDS_OF_OTHERS: dict[str, Callable[[Observed], None]] = {
    "stop": stop_other,
    "finish": finish_other,
    "save": save_other,
}


def act(registry: Registry, run: Run | Observed, command: str) -> None:
    """Do what one of COMMANDS says. Raises CommandError and BusyError."""
    if isinstance(run, Run):
        COMMANDS[command](registry, run)
    elif command in COMMANDS_OF_OTHERS:
        COMMANDS_OF_OTHERS[command](run)
    else:
        raise CommandError(
            f"The run {run.id!r} is not this ComfyUI's in the background, so {command} is not for "
            "it: queue its workflow to go on, or stop it where it runs."
        )


def _ask(run: Observed, wish: str) -> None:
    if not run.is_worked_on:
        raise CommandError(f"Nobody works on the run {run.id!r}: there is nothing to {wish}.")
    stop_request.ask(run.folder, wish)


def _check_saved(run_id: str, preset: str | None) -> None:
    if preset is None:
        raise CommandError(
            f"The run {run_id!r} has found nothing better than the plain model yet: save it after "
            "a validation that has."
        )


def _check(run: Run, word: str, *states: str) -> None:
    if run.record.state not in states:
        raise CommandError(f"The run {run.id!r} is {run.record.state} and cannot be {word}.")
