"""How commands end, for scripts, and what they say then."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

DONE = 0
FAILED = 1
"""Something failed while it drew, scored or wrote; what was done is kept."""
BAD_INPUT = 2
"""Nothing was begun; a sentence says what to change."""
BUSY = 3
"""Another process works on the run."""
STOPPED = 130
"""Ctrl-C, or `comfyui-calibri stop`; the same command goes on."""
TERMINATED = 143
"""SIGTERM, as a scheduler sends it; the same command goes on."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, taken like Ctrl-C: what holds files closes them."""

    came = False
    """Whether the command that runs was sent one: Ray makes a KeyboardInterrupt of ours."""


@contextmanager
def sentences(code: int) -> Iterator[None]:
    """Expected errors end the command with their sentence and this code; a stop with its own."""
    from ..calibri.cluster_worker import WorkerError
    from ..calibri.evaluation import ImageTooLargeError
    from ..calibri.journal import JournalError
    from ..calibri.journal_file import JournalBusyError
    from ..calibri.stop_request import StopRequestedError
    from ..rewards.protocol import RewardUnavailableError
    from ..training.lock import TrainingBusyError

    expected = (
        ValueError,
        OSError,
        RewardUnavailableError,
        ImageTooLargeError,
        JournalError,
        WorkerError,
    )
    try:
        yield
    except (JournalBusyError, TrainingBusyError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(BUSY) from error
    except expected as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(code) from error
    except StopRequestedError as asked:
        typer.echo("Stopped, as was asked. The same command goes on.", err=True)
        raise typer.Exit(STOPPED) from asked
    except KeyboardInterrupt as interrupt:
        if Terminated.came or isinstance(interrupt, Terminated):
            typer.echo("Terminated. The same command goes on.", err=True)
            raise typer.Exit(TERMINATED) from interrupt
        typer.echo("Stopped. The same command goes on.", err=True)
        raise typer.Exit(STOPPED) from interrupt


@contextmanager
def terminable() -> Iterator[None]:
    """Within, SIGTERM ends the command as Ctrl-C does."""

    def end(_: int, __: FrameType | None) -> None:
        Terminated.came = True
        raise Terminated

    Terminated.came = False
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
