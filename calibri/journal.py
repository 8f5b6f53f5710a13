"""The append-only journal of a calibration run, one SQLite file.

It holds the configuration, every evaluation's vectors, samples and batches, each batch's rewards
as soon as they are known, and what happened to the run. The search's state is not in it: it is
recomputed from these rows (`calibration.py`), so a run that was killed continues as if it had not
been. One process writes at a time, from any of its threads; others may read meanwhile.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .batches import Shortage
from .evaluation import Batch, Floats, Sample
from .journal_file import (
    JournalError,
    check_version,
    connect,
    create_tables,
    explained,
    lock_for_writing,
    set_durability,
)

__all__ = ["Evaluation", "Event", "Journal", "JournalError"]

_BYTES = 8  # of a number in a BLOB


@dataclass(frozen=True)
class Evaluation:
    """One journalled evaluation: K vectors on S samples, as far as it has come."""

    id: int
    role: str
    generation: int
    vectors: Floats
    """[K, N]"""
    bucket: tuple[Sample, ...]
    """S samples"""
    pending: tuple[Batch, ...]
    """Batches without a result, in the order in which they run."""
    rewards: Floats
    """[K, S], NaN where pending"""
    seconds: float
    """Wall time of the batches that are done."""

    @property
    def done(self) -> int:
        """Images that have their reward."""
        return int(np.isfinite(self.rewards).sum())


@dataclass(frozen=True)
class Event:
    """Something that happened to the run; `time` in seconds since 1970."""

    kind: str
    time: float
    detail: Mapping[str, Any]


class Journal:
    """A run's journal; `Journal.open` to write, `Journal.read` to look at it. A context manager.

    Every method raises JournalError where the file cannot be read or written.
    """

    def __init__(
        self, path: Path, database: sqlite3.Connection, lock: sqlite3.Connection | None
    ) -> None:
        self.path = path
        self._database = database
        self._lock = lock
        self._one_thread = threading.RLock()

    @classmethod
    def open(cls, path: Path | str) -> Journal:
        """Open for writing, making the file and its folders where they are missing.

        Raises JournalError where another process or run has it open for writing.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(
                f"The folder of the journal {path} cannot be made ({error}): name another folder."
            ) from error
        lock = lock_for_writing(path)
        try:
            database = connect(path, path.resolve().as_uri() + "?mode=rwc")
            try:
                with explained(path):
                    create_tables(path, database)
                    set_durability(path, database)
            except BaseException:
                database.close()
                raise
        except BaseException:
            lock.close()
            raise
        return cls(path, database, lock)

    @classmethod
    def read(cls, path: Path | str) -> Journal:
        """Open an existing journal for reading, also while another process writes it."""
        path = Path(path)
        if not path.is_file():
            raise JournalError(f"There is no journal {path}: check the run's name.")
        database = connect(path, path.resolve().as_uri() + "?mode=ro")
        try:
            with explained(path):
                check_version(path, database)
        except BaseException:
            database.close()
            raise
        return cls(path, database, None)

    def close(self) -> None:
        """Close the file and let others write; closing twice is fine."""
        self._database.close()
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def config(self) -> dict[str, Any] | None:
        """The run's configuration as it was begun with, None in a new journal."""
        rows = self._rows("SELECT config FROM configuration")
        return json.loads(rows[0][0]) if rows else None

    def set_config(self, config: Mapping[str, Any]) -> None:
        """Store the configuration of a new run; it never changes afterwards."""
        with self._writing() as database:
            database.execute("INSERT INTO configuration VALUES (1, ?)", (json.dumps(config),))

    def add_evaluation(
        self,
        role: str,
        generation: int,
        vectors: Floats,
        bucket: Sequence[Sample],
        batches: Sequence[Batch],
    ) -> None:
        """Store what is about to be evaluated and in which batches."""
        samples = json.dumps([[sample.prompt, sample.seed] for sample in bucket])
        with self._writing() as database:
            cursor = database.execute(
                "INSERT INTO evaluations (role, generation, candidates, vectors, bucket) "
                "VALUES (?, ?, ?, ?, ?)",
                (role, generation, len(vectors), _to_bytes(vectors), samples),
            )
            database.execute(
                "INSERT INTO plans (evaluation, batches) VALUES (?, ?)",
                (cursor.lastrowid, json.dumps(batches)),
            )

    def replace_plan(
        self, evaluation: Evaluation, batches: Sequence[Batch], too_large: int
    ) -> None:
        """Store new batches for all that is pending, after one of `too_large` images failed."""
        with self._writing() as database:
            database.execute(
                "INSERT INTO plans (evaluation, batches, too_large) VALUES (?, ?, ?)",
                (evaluation.id, json.dumps(batches), too_large),
            )

    def add_result(
        self, evaluation: Evaluation, batch: Batch, rewards: Floats, seconds: float
    ) -> None:
        """Store one batch's rewards; from here on it is never run again."""
        with self._writing() as database:
            database.execute(
                "INSERT INTO results (evaluation, batch, rewards, seconds) VALUES (?, ?, ?, ?)",
                (evaluation.id, json.dumps(batch), _to_bytes(rewards), seconds),
            )

    def add_event(self, kind: str, detail: Mapping[str, Any]) -> None:
        """Store that the run was started, resumed, interrupted or finished."""
        with self._writing() as database:
            database.execute(
                "INSERT INTO events (time, kind, detail) VALUES (?, ?, ?)",
                (time.time(), kind, json.dumps(detail)),
            )

    def evaluation(self, role: str, generation: int) -> Evaluation | None:
        """The evaluation of this role and generation, None if it was not begun."""
        found = self._evaluations("WHERE role = ? AND generation = ?", (role, generation))
        return found[0] if found else None

    def evaluations(self, role: str | None = None) -> list[Evaluation]:
        """All evaluations, or those of a role, in the order they were begun."""
        return self._evaluations("WHERE role = ifnull(?, role)", (role,))

    def has_evaluation(self, role: str, generation: int) -> bool:
        """Whether the evaluation of this role and generation was begun."""
        query = "SELECT 1 FROM evaluations WHERE role = ? AND generation = ?"
        return bool(self._rows(query, (role, generation)))

    def last_generation(self) -> int:
        """The search's last generation that was begun, 0 before the first."""
        query = "SELECT max(generation) FROM evaluations WHERE role = 'generation'"
        return int(self._rows(query)[0][0] or 0)

    def last_role(self) -> str:
        """The role of the evaluation that was begun last, "" before the first."""
        rows = self._rows("SELECT role FROM evaluations ORDER BY id DESC LIMIT 1")
        return str(rows[0][0]) if rows else ""

    def drawn(self) -> tuple[int, float]:
        """Images that have their reward, and the seconds that their batches took."""
        query = f"SELECT sum(length(rewards)) / {_BYTES}, sum(seconds) FROM results"
        ((images, seconds),) = self._rows(query)
        return int(images or 0), float(seconds or 0.0)

    def events(self) -> list[Event]:
        """All events, oldest first."""
        rows = self._rows("SELECT kind, time, detail FROM events ORDER BY id")
        return [Event(kind, when, json.loads(detail)) for kind, when, detail in rows]

    def shortages(self) -> list[Shortage]:
        """When memory ran out, oldest first."""
        rows = self._rows(
            "SELECT min(too_large), (SELECT count(*) FROM evaluations WHERE id > evaluation) "
            "FROM plans WHERE too_large IS NOT NULL GROUP BY evaluation ORDER BY evaluation"
        )
        return [Shortage(images, since) for images, since in rows]

    def _evaluations(self, which: str, values: Sequence[object]) -> list[Evaluation]:
        rows = self._rows(
            "SELECT id, role, generation, candidates, vectors, bucket FROM evaluations "
            f"{which} ORDER BY id",
            values,
        )
        return [self._evaluation(row) for row in rows]

    def _evaluation(self, row: tuple[Any, ...]) -> Evaluation:
        key, role, generation, candidates, vectors, bucket = row
        samples = tuple(Sample(prompt, seed) for prompt, seed in json.loads(bucket))
        rewards = np.full((candidates, len(samples)), np.nan)
        seconds = 0.0
        for batch, values, took in self._rows(
            "SELECT batch, rewards, seconds FROM results WHERE evaluation = ? ORDER BY id", (key,)
        ):
            rewards[tuple(zip(*json.loads(batch), strict=True))] = np.frombuffer(values, "<f8")
            seconds += took
        (plan,) = self._rows(
            "SELECT batches FROM plans WHERE evaluation = ? ORDER BY id DESC LIMIT 1", (key,)
        )
        batches = [tuple((c, p) for c, p in batch) for batch in json.loads(plan[0])]
        return Evaluation(
            id=key,
            role=role,
            generation=generation,
            vectors=np.frombuffer(vectors, "<f8").reshape(candidates, -1).astype(np.float64),
            bucket=samples,
            pending=tuple(batch for batch in batches if np.isnan(rewards[batch[0]])),
            rewards=rewards,
            seconds=seconds,
        )

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        with self._one_thread, explained(self.path):
            return self._database.execute(query, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._one_thread, explained(self.path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise


def _to_bytes(values: Floats) -> bytes:
    return np.ascontiguousarray(values, "<f8").tobytes()
