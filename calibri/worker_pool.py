"""Workers on a Ray cluster: one actor each, begun when there is room for it, replaced when it dies.

As many are wanted as were asked for, or as the cluster has room for (`cluster_room.py`): a machine
that joins gets workers, one that leaves takes its own along, and what they were doing is told as
lost. Nothing here knows what they do (`cluster.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .cluster_room import Needs, Resources, capacity, no_room, room
from .cluster_worker import KINDS, Answer, EvaluatorFactory, Task, Worker, WorkerError

Check = Callable[[Any, Any], str]
"""What the first worker told of itself, None before there is one, and what another tells: why that
one is let go, "" if it is taken."""

LOOK_AGAIN = 5.0  # seconds between two looks at what the cluster has
MOST_FAILED_STARTS = 3  # in a row, before any worker has started
RETRY_AFTER = 10.0  # seconds, times the failures in a row, up to
LONGEST_PAUSE = 300.0  # seconds, where a machine lets none start
# Seconds after which it is said that workers have no place: where they can have none, and where
# they may have one in which only their process has not begun yet.
NO_PLACE, PERHAPS_NONE = 10.0, 60.0
SAY_AGAIN = 600.0  # seconds, while there is no worker at all


@dataclass(frozen=True)
class Landed:
    """A task that is over: with its answer, or lost with its worker, and why."""

    task: Task
    answer: Answer | None
    lost: str = ""


@dataclass
class _Member:
    """One worker: an actor, what it is asked now, and since when."""

    actor: Any
    state: str
    """"waiting" for room on the cluster, "starting", "idle" or "busy"."""
    reference: Any
    since: float
    place: str = ""
    task: Task | None = None


class WorkerPool:
    """The workers of one driver. `wanted` workers, or with None as many as there is room for.

    `told` is what the first worker's evaluator says of itself; a worker that `check` has something
    against is let go. `say` hears of workers that come, go, fail and have no place. Ray must be
    connected to.
    """

    def __init__(
        self,
        factory: EvaluatorFactory,
        needs: Needs,
        wanted: int | None,
        say: Callable[[str], None],
        check: Check,
    ) -> None:
        import ray

        self._ray = ray
        self._actor: Any = ray.remote(Worker)
        self._factory = ray.put(factory)
        self._needs, self._asked, self._say, self._check = needs, wanted, say, check
        self._members: list[_Member] = []  # that are not lost
        self._failed = 0
        self._not_before = 0.0
        self._looked = -LOOK_AGAIN
        self._said: tuple[str, float] = ("", 0.0)
        """What was last said of workers without a place, and when."""
        self.told: Any = None
        self.started = 0
        """Workers that have started since the beginning."""
        self.busy_seconds = 0.0
        """That workers have drawn, all together."""
        self.wanted = wanted or 1

    @property
    def idle(self) -> int:
        """Workers that could take a task."""
        return sum(member.state == "idle" for member in self._members)

    @property
    def places(self) -> list[str]:
        """Where the workers are that have started."""
        return [m.place for m in self._members if m.state in ("idle", "busy")]

    def assign(self, task: Task) -> None:
        """Give a task to an idle worker; there must be one."""
        member = next(member for member in self._members if member.state == "idle")
        member.task, member.state, member.since = task, "busy", time.monotonic()
        member.reference = member.actor.do.remote(task)

    def look(self, seconds: float) -> list[Landed]:
        """Wait up to `seconds` for something to happen; what is over, in its order.

        Raises WorkerError where no worker can be started.
        """
        self._fill()
        waiting = {m.reference: m for m in self._members if m.reference is not None}
        landed: list[Landed] = []
        if waiting:
            ready, _ = self._ray.wait(list(waiting), timeout=seconds, fetch_local=True)
            for reference in ready:
                landed += self._ended(waiting[reference])
        else:
            time.sleep(seconds)
        for member in list(self._members):
            landed += self._hung(member)
        return landed

    def close(self) -> None:
        """End all workers."""
        for member in self._members:
            self._ray.kill(member.actor)
        self._members.clear()

    def _fill(self) -> None:
        """Begin workers until there are as many as are wanted."""
        now = time.monotonic()
        if now - self._looked >= LOOK_AGAIN:
            self._looked = now
            machines = self._machines()
            if self._asked is None:
                self.wanted = max(room(self._needs, machines), 1)
                self._leave_the_queue()
            self._tell_of_room(machines, now)
        if now < self._not_before:
            return
        while len(self._members) < self.wanted:
            actor = self._actor.options(
                num_gpus=self._needs.gpus, num_cpus=self._needs.cpus, scheduling_strategy="SPREAD"
            ).remote()
            self._members.append(_Member(actor, "waiting", actor.where.remote(), now))

    def _machines(self) -> list[Resources]:
        """What the cluster's machines have, what runs on them counted in."""
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _leave_the_queue(self) -> None:
        """Take back workers that have no place and are wanted no more: a machine left."""
        waiting = [member for member in self._members if member.state == "waiting"]
        for member in waiting[: max(len(self._members) - self.wanted, 0)]:
            self._members.remove(member)
            self._ray.kill(member.actor)

    def _tell_of_room(self, machines: list[Resources], now: float) -> None:
        """Say, once for what it is, that workers have waited for a place for a while."""
        since = [member.since for member in self._members if member.state == "waiting"]
        too_many = self.wanted - capacity(self._needs, machines)
        if not since or now - min(since) < (NO_PLACE if too_many > 0 else PERHAPS_NONE):
            return
        # Some of them may have a place in which their process has not begun yet.
        waiting = min(len(since), too_many) if too_many > 0 else len(since)
        # What others leave free comes and goes, and is not said again each time.
        about = str((waiting, self.wanted, too_many, len(machines)))
        before, when = self._said
        if about != before or (not self.places and now - when >= SAY_AGAIN):
            self._said = about, now
            free = self._ray.available_resources()
            self._say(no_room(self._needs, self.wanted, waiting, machines, free))

    def _ended(self, member: _Member) -> list[Landed]:
        """See to a worker whose question is answered, or that is gone."""
        now, task = time.monotonic(), member.task
        try:
            answer = self._ray.get(member.reference)
        except self._ray.exceptions.RayError as error:
            return self._lose(member, _why(error))
        if member.state == "waiting":
            member.place, member.state, member.since = answer, "starting", now
            member.reference = member.actor.start.remote(self._factory)
            return []
        if member.state == "starting":
            self._start(member, answer)
            return []
        if "CUDA error" in answer.message:  # nothing computes in this process any more
            return self._lose(member, f"its device failed ({answer.message})")
        self.busy_seconds += now - member.since
        member.state, member.reference, member.task = "idle", None, None
        assert task is not None
        if answer.kind and answer.kind not in KINDS:  # what nobody expected may be its machine's
            answer = replace(answer, message=f"{answer.message} (a worker on {member.place})")
        return [Landed(task, answer)]

    def _start(self, member: _Member, answer: Answer) -> None:
        """Take a worker in that has its models, or let it go."""
        why = answer.message if answer.kind else self._check(self.told, answer.value)
        if why:
            self._lose(member, why)
            return
        self._failed = 0
        self.started += 1
        if self.told is None:
            self.told = answer.value
        member.state, member.reference = "idle", None
        self._say(f"A worker is ready on {member.place}, after {answer.seconds:.0f} s.")

    def _hung(self, member: _Member) -> list[Landed]:
        limits = {"busy": self._needs.batch_seconds, "starting": self._needs.start_seconds}
        limit = limits.get(member.state)
        if limit is None or time.monotonic() - member.since < limit:
            return []
        option = " (--worker-timeout)" if member.state == "busy" else ""
        return self._lose(member, f"it gave no answer for {limit:.0f} s{option}")

    def _lose(self, member: _Member, why: str) -> list[Landed]:
        """Let a worker go that died, hangs or cannot start; another takes its place."""
        self._members.remove(member)
        self._ray.kill(member.actor)
        place = f" on {member.place}" if member.place else ""
        why = why.rstrip(".")
        self._say(f"A worker{place} is replaced: {why}.")
        if member.state != "busy":
            self._failed += 1
            pause = min(RETRY_AFTER * (self._failed - 1), LONGEST_PAUSE)
            self._not_before = time.monotonic() + pause
            if not self.started and self._failed >= MOST_FAILED_STARTS:
                raise WorkerError(f"No worker can be started: {why}.")
            return []
        assert member.task is not None
        return [Landed(member.task, None, why)]


def _why(error: Exception) -> str:
    """Ray's error in one line."""
    name, lines = type(error).__name__, [line.strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line] or [name]
    if "OutOfMemory" in name:
        return "its machine's memory ran out"
    if "creation task" in lines[0]:  # it could not be made of what came to its machine
        mend = (
            ": install it into the Python that Ray runs there" if "No module" in lines[-1] else ""
        )
        return f"its process cannot begin ({lines[-1]}){mend}"
    if name in ("ActorDiedError", "ActorUnavailableError", "RayActorError", "WorkerCrashedError"):
        return "its process has ended"
    # The last line of a traceback, the first of anything else.
    return lines[-1 if name.startswith("RayTaskError") else 0]
