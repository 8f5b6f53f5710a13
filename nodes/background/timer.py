"""The timer on the server's loop that submits slices: one at a time, and only when nobody else's
prompt has been in the queue for `idle_seconds`.

While there is no run it sleeps. Nothing is computed here: it looks at the queue, submits, and sees
to what a slice has left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from typing import Any

from . import rebuild
from .comfy_queue import ComfyQueue, InvalidPromptError, Look
from .events import Events
from .flight import Flight
from .passengers import Passengers
from .record import PAUSED
from .registry import Registry
from .run import Run

TICK = 0.25  # seconds between two looks at the queue while a run waits for its next slice
FLYING_TICK = 0.05  # the same while a slice runs
LANDING_TICK = 0.005  # the same when its node is done: ComfyUI writes its history next
MOST_INTERRUPTS = 3


class Timer:
    """Submits the slices of all runs. `flight` is the slice that was submitted and is not over."""

    def __init__(self, server: Any, registry: Registry) -> None:
        self._loop: asyncio.AbstractEventLoop = server.loop
        self._queue = ComfyQueue(server)
        self._registry = registry
        self._events = Events(server, registry)
        self.passengers = Passengers(self._queue)
        self.flight: Flight | None = None
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._idle_since = time.monotonic()
        self._taken = 0  # prompts that had begun at the last look
        self._ours: frozenset[str] = frozenset()

    def wake(self) -> None:
        """Look at once; from any thread."""
        self._loop.call_soon_threadsafe(self._wake)

    def others_wait(self) -> bool:
        """Whether somebody waits for the slice that runs; from any thread."""
        flight = self.flight
        return self._queue.waiting() or (flight is not None and flight.unwanted)

    def make_room(self) -> None:
        """End the slice that runs as if a prompt waited, for whoever waits for an empty queue; on
        the server's loop."""
        self._idle_since = time.monotonic()
        if self.flight is not None:
            self.flight.unwanted = True

    def hurry(self) -> None:
        """Look soon, since a prompt was posted; on the server's loop."""
        if self.flight is not None:
            self._woken.set()

    def _wake(self) -> None:
        self._woken.set()
        if self._task is None:
            self._task = self._loop.create_task(self._run())

    async def _run(self) -> None:
        failures = 0  # in a row
        while True:
            try:
                seconds = await self._look()
                failures = 0
            except Exception as error:
                logging.exception("Calibri: the timer of the background runs failed and goes on.")
                seconds, failures = TICK, failures + 1
                run = self._registry.current()
                if failures >= MOST_INTERRUPTS and run is not None:
                    self._registry.rest(run, PAUSED, f"Its slices cannot be queued: {error}")
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._woken.wait(), seconds)
            self._woken.clear()

    async def _look(self) -> float | None:
        """One look at the queue; seconds until the next, None to sleep until woken."""
        look = self._queue.look()
        self._note_others(look)
        if self.flight is not None:
            self._follow(self.flight, look)
        if self.flight is None:
            await self._submit_when_idle()
        unsaid = self._events.tell()
        if self.flight is not None:
            return LANDING_TICK if self.flight.worked else FLYING_TICK
        if self._registry.current() is not None:
            return TICK
        return TICK if unsaid else None

    def _note_others(self, look: Look) -> None:
        """See whether the queue has been anybody else's since the last look."""
        flying = frozenset() if self.flight is None else {self.flight.prompt_id}
        begun = look.taken - self._taken
        if self.flight is not None and not self.flight.counted and self.flight.began(look):
            self.flight.counted = True
            begun -= 1
        self._taken = look.taken
        if begun > 0 or look.all - flying:
            self._idle_since = time.monotonic()
            # Now, since somebody may clear the history before the next slice.
            self.passengers.look(self._ours)

    async def _submit_when_idle(self) -> None:
        run = self._registry.current()
        if run is None:
            return
        if time.monotonic() - self._idle_since < run.record.idle_seconds:
            return
        self.passengers.look(self._ours)
        token = uuid.uuid4().hex
        try:
            if run.prepared is None:
                prompt, target = rebuild.rebuilding(run.record, token)
            else:
                prompt, target = _slice(run, token)
        except ValueError as error:
            self._registry.rest(run, PAUSED, str(error))
            return
        flight = Flight(run, target, rebuilds=run.prepared is None)
        # Before it is in the queue: it may begin at once.
        self.flight = flight
        try:
            submitted = await self._queue.submit({**self.passengers.copies(), **prompt}, target)
        except InvalidPromptError as error:
            self.flight = None
            self._registry.rest(run, PAUSED, f"ComfyUI refused the run's next slice: {error}")
            return
        except BaseException:
            self.flight = None
            raise
        if submitted is None:
            self.flight = None
            return
        flight.prompt_id = submitted
        self._ours |= {submitted}
        if flight.rebuilds:
            flight.prompt = prompt

    def _follow(self, flight: Flight, look: Look) -> None:
        """See to the slice that was submitted."""
        if flight.prompt_id in look.pending:
            # Behind others it would keep the queue from being empty when they are done.
            unwanted = len(look.all) > 1 or not flight.run.goes_on
            if unwanted and self._queue.withdraw(flight.prompt_id):
                self.flight = None
                self._ours -= {flight.prompt_id}
            return
        if flight.prompt_id in look.running:
            flight.note_waiting(look)
            return
        self.flight = None
        self._land(flight)

    def _land(self, flight: Flight) -> None:
        """See to what a slice has left, now that it is over."""
        run, entry = flight.run, self._queue.entry(flight.prompt_id)
        interrupted = flight.interrupted or (entry is not None and entry.interrupted)
        failed = not interrupted and (
            flight.error != "" or (entry is not None and entry.status == "error")
        )
        if not failed:
            self._queue.forget([flight.prompt_id])
            self._ours -= {flight.prompt_id}
        # A user's prompts may follow at once; ours wait until the queue has been empty again.
        self._idle_since = time.monotonic()
        with run.lock:
            record = run.record
            record.longest_wait = max(record.longest_wait, flight.waited())
            record.interrupts = record.interrupts + 1 if interrupted else 0
            if run.deleted:
                return
            if failed:
                told = "" if entry is None else entry.error
                self._pause(run, flight.error or told or "Its slice failed.")
            elif interrupted and record.interrupts >= MOST_INTERRUPTS:
                self._pause(run, f"It was cancelled {MOST_INTERRUPTS} times in a row.")
            elif not (interrupted or flight.worked or entry is not None):
                self._pause(run, "Its slice was taken out of the queue.")
            else:
                if flight.rebuilds and not self.passengers.copies():
                    self.passengers.board(flight.prompt)
                run.save()

    def _pause(self, run: Run, reason: str) -> None:
        if run.goes_on:
            self._registry.rest(run, PAUSED, reason)
        else:
            run.save()


def _slice(run: Run, token: str) -> tuple[dict[str, Any], str]:
    """A slice's own node, and its id, which no node of a graph has."""
    target = f"calibri-slice-{token}"
    inputs = {"run": run.id, "slice": run.record.slices + 1}
    return {target: {"class_type": "CalibriSlice", "inputs": inputs}}, target
