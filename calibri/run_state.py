"""How a run stands, read from its journal alone, also while another process writes it.

Nothing is recomputed and no model is needed, so this answers at once, on any machine that sees the
run's folder.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .budget import FINISHED
from .journal import Evaluation, Journal, JournalError
from .journal_file import is_locked
from .selection import START, Interval, mean_interval, prompt_means

NEW, RUNNING, RESTS, ENDED, BROKEN = "new", "running", "rests", "finished", "unreadable"


@dataclass(frozen=True)
class Validated:
    """A mean's reward on held-out prompts, and its paired gain over the plain model."""

    generation: int
    reward: float
    gain: Interval


@dataclass(frozen=True)
class RunState:
    """One run. Generation 0 is the plain model, −1 the preset that the search began at."""

    id: str
    state: str
    """NEW, RUNNING (another process works on it), RESTS, ENDED or BROKEN."""
    reward: str = ""
    generation: int = 0
    """The last whole one."""
    images: int = 0
    seconds: float = 0.0
    """Of its batches."""
    plain: float | None = None
    best: Validated | None = None
    """The best so far, on the samples that it was chosen on."""
    recommended: int | None = None
    """What it recommended when it last ended."""
    generations: tuple[dict[str, Any], ...] = ()
    """Of each whole one: generation, mean, best, and validation, None where there was none."""
    validations: tuple[Validated, ...] = ()
    events: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    """The last ones: time, in seconds since 1970, and kind."""
    problem: str = ""

    def summary(self) -> dict[str, Any]:
        """What a list of runs says of it, as JSON values."""
        values = asdict(self)
        for name in ("generations", "validations", "events"):
            del values[name]
        return values

    def record(self) -> dict[str, Any]:
        """All of it, as JSON values."""
        return asdict(self)


def read_state(journal_file: Path) -> RunState:
    """The state of the run whose journal this is; its folder's name is its id."""
    name, locked = journal_file.parent.name, is_locked(journal_file)
    if not journal_file.is_file():
        return RunState(name, RUNNING if locked else NEW)
    try:
        with Journal.read(journal_file) as journal:
            return _state(name, locked, journal)
    except JournalError as error:
        if locked:  # it is in the making
            return RunState(name, RUNNING)
        return RunState(name, BROKEN, problem=str(error))


def _state(name: str, locked: bool, journal: Journal) -> RunState:
    config = journal.config() or {}
    evaluations = journal.evaluations()
    validations = _validations(evaluations)
    whole = [e for e in evaluations if e.role == "generation" and not e.pending]
    validated = {one.generation: one.reward for one in validations}
    events = journal.events()
    ended = next((e for e in reversed(events) if e.kind == FINISHED), None)
    last = journal.last_generation()
    is_over = ended is not None and ended.detail.get("searched") == last
    plain = next((one.reward for one in validations if one.generation == 0), None)
    return RunState(
        id=name,
        state=RUNNING if locked else ENDED if is_over else RESTS,
        reward=config.get("reward", ""),
        generation=max((e.generation for e in whole), default=0),
        images=sum(e.done for e in evaluations),
        seconds=sum(e.seconds for e in evaluations),
        plain=plain,
        best=max(validations, key=lambda one: one.reward, default=None),
        recommended=None if ended is None or not is_over else ended.detail.get("recommended"),
        generations=tuple(
            {
                "generation": e.generation,
                "mean": float(e.rewards.mean(axis=1).mean()),
                "best": float(e.rewards.mean(axis=1).max()),
                "validation": validated.get(e.generation),
            }
            for e in whole
        ),
        validations=validations,
        events=tuple({"time": e.time, "kind": e.kind} for e in events[-20:]),
    )


def _validations(evaluations: list[Evaluation]) -> tuple[Validated, ...]:
    """Every validated mean, by generation."""
    plain = None
    found = []
    whole = (e for e in evaluations if e.role == "validation" and not e.pending)
    for evaluation in sorted(whole, key=lambda e: e.generation):
        # Beside the plain model a warm start's preset was validated, in a row of its own.
        rows = zip((evaluation.generation, START), evaluation.rewards, strict=False)
        for generation, rewards in rows:
            means = prompt_means(rewards, evaluation.bucket)
            plain = means if plain is None else plain
            gain = mean_interval(means - plain)
            found.append(Validated(generation, float(rewards.mean()), gain))
    return tuple(found)
