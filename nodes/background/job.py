"""The background job of this ComfyUI: its runs and its timer, once there is a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .comfy_queue import server
from .flight import Flight
from .others import Others
from .registry import Registry
from .run import Run
from .timer import Timer

if TYPE_CHECKING:
    from .foreground import Foreground

_registry: Registry | None = None
_timer: Timer | None = None
_others: Others | None = None
_asked: dict[str, set[str]] = {}


def start() -> None:
    """Take up earlier runs and offer the routes; nothing in a process without a server."""
    global _registry, _timer, _others
    running = server()
    if running is None or _registry is not None:
        return
    from . import routes

    _registry = Registry()
    _registry.load()
    _timer = Timer(running, _registry)
    _registry.wake = _timer.wake
    _others = Others(_registry, running.send_sync)
    routes.add(running.routes, _registry, _others, _timer.make_room)
    running.add_on_prompt_handler(_hear)


def registry() -> Registry:
    """All runs. Raises RuntimeError in a process without a server."""
    if _registry is None:
        raise RuntimeError(
            "A calibration in the background needs ComfyUI's server, which does not run here: use "
            "Calibrate in place of Calibrate (background)."
        )
    return _registry


def flight_of(node: str | None) -> Flight | None:
    """The prompt that the timer has submitted to execute this node, None where it has not."""
    flight = None if _timer is None else _timer.flight
    return flight if flight is not None and flight.target == node else None


@contextmanager
def in_prompt(run_id: str) -> Iterator[Foreground | None]:
    """Within, the prompt that runs works on this run; None in a process without a server."""
    if _others is None:
        yield None
        return
    with _others.in_prompt(run_id) as foreground:
        yield foreground


def remember(given: str, run: Run) -> None:
    """That a node with these widgets, by their digest, has this run."""
    _asked.setdefault(given, set()).add(run.id)


def bests(given: str) -> str:
    """Names the bests so far of the runs of nodes with these widgets; "" before there is one."""
    if _registry is None:
        return ""
    found = (_registry.find(run_id) for run_id in sorted(_asked.get(given, ())))
    return " ".join(run.best for run in found if run is not None and run.best)


def work(flight: Flight) -> None:
    """Do a slice's work; in ComfyUI's own thread."""
    from . import slice_work

    assert _timer is not None
    try:
        slice_work.work(flight.run, flight, _timer.others_wait)
    finally:
        _timer.wake()


def _hear(posted: dict[str, Any]) -> dict[str, Any]:
    """ComfyUI tells of each prompt that is posted."""
    if _timer is not None:
        _timer.passengers.heard(posted.get("prompt"))
        _timer.hurry()
    return posted
