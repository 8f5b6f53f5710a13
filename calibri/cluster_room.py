"""Whether a Ray cluster has room for the workers that are wanted, and what is said where not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Resources = Mapping[str, float]
"""As Ray tells them: "GPU" and "CPU", in units, where there are any."""


@dataclass(frozen=True)
class Needs:
    """What a worker takes of the cluster, and how long it may take."""

    gpus: float = 0.0
    cpus: float = 1.0
    batch_seconds: float = 900.0
    """After so many a worker that draws counts as hung."""
    start_seconds: float = 1800.0
    """The same for loading its models."""
    taken: int = 0
    """Places that other actors of the same driver take."""

    def places(self, machine: Resources) -> int:
        """Workers that one machine of these resources can hold."""
        limits = [
            machine.get(name, 0.0) / amount
            for name, amount in (("GPU", self.gpus), ("CPU", self.cpus))
            if amount
        ]
        return int(min(limits, default=1.0) + 1e-9)


def capacity(needs: Needs, machines: Sequence[Resources]) -> int:
    """Workers that these machines can hold at most, whatever runs on them now."""
    return max(sum(needs.places(machine) for machine in machines) - needs.taken, 0)


def room(needs: Needs, machines: Sequence[Resources]) -> int:
    """Workers where nobody says how many: one for each GPU, or for each machine where none is
    asked for."""
    if needs.gpus:
        return capacity(needs, machines)
    return sum(min(1, needs.places(machine)) for machine in machines)


def no_room(
    needs: Needs, wanted: int, waiting: int, machines: Sequence[Resources], free: Resources
) -> str:
    """Why `waiting` of `wanted` workers have no place on a cluster, and what to do."""
    who, takes = (
        f"{waiting} of {wanted} workers {'waits' if waiting == 1 else 'wait'}",
        "each takes",
    )
    if wanted == 1:
        who, takes = "The worker waits", "it takes"
    total = {name: sum(machine.get(name, 0.0) for machine in machines) for name in ("GPU", "CPU")}
    has = f"{_amounts(total)} on {_count(len(machines), 'machine')}, {_amounts(free)} free"
    are = "is" if needs.taken == 1 else "are"
    taken = f" ({needs.taken} of its places {are} for rewards)" if needs.taken else ""
    if not any(needs.places(machine) for machine in machines):
        mend = (
            "no machine has as much: ask for less with --gpus-per-worker or --cpus-per-worker, or "
            "add a machine that has"
        )
    elif wanted > capacity(needs, machines):
        mend = "ask for fewer with --workers or --reward-workers, or add machines"
    else:
        mend = "something else has taken it: end that, or add machines"
    asked = _amounts({"GPU": needs.gpus, "CPU": needs.cpus})
    return f"{who} for a place: {takes} {asked}, and the cluster has {has}{taken}; {mend}."


def _amounts(resources: Resources) -> str:
    """As "1 GPU and 0.5 CPUs"."""
    return " and ".join(_count(resources.get(name, 0.0), name) for name in ("GPU", "CPU"))


def _count(amount: float, name: str) -> str:
    return f"{amount:g} {name}" if amount == 1 else f"{amount:g} {name}s"
