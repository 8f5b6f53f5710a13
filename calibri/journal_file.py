"""The SQLite file under a journal: its tables, its write lock, its version and its errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .network_drives import is_network_drive

SCHEMA_VERSION = 1

_TABLES = {
    "configuration": "id INTEGER PRIMARY KEY CHECK (id = 1), config TEXT NOT NULL",
    "evaluations": (
        "id INTEGER PRIMARY KEY, role TEXT NOT NULL, generation INTEGER NOT NULL, "
        "candidates INTEGER NOT NULL, vectors BLOB NOT NULL, bucket TEXT NOT NULL, "
        "UNIQUE (role, generation)"
    ),
    # A plan made again after `too_large` images did not fit in memory; the last one counts.
    "plans": (
        "id INTEGER PRIMARY KEY, evaluation INTEGER NOT NULL REFERENCES evaluations, "
        "batches TEXT NOT NULL, too_large INTEGER"
    ),
    "results": (
        "id INTEGER PRIMARY KEY, evaluation INTEGER NOT NULL REFERENCES evaluations, "
        "batch TEXT NOT NULL, rewards BLOB NOT NULL, seconds REAL NOT NULL"
    ),
    "events": (
        "id INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, detail TEXT NOT NULL"
    ),
}


# Without them reading one evaluation reads all results. Older journals get them when they go on.
_INDICES = {
    "results_of_evaluation": "results (evaluation)",
    "plans_of_evaluation": "plans (evaluation)",
}


class JournalError(RuntimeError):
    """The journal cannot be opened, written, or continued with what was given."""


class JournalBusyError(JournalError):
    """Another process or run has the journal open for writing."""


def connect(path: Path, uri: str) -> sqlite3.Connection:
    """Open the database of a SQLite URI; transactions are begun by hand."""
    with explained(path):
        # `Journal` lets one thread at a time use it.
        return sqlite3.connect(
            uri, uri=True, timeout=10, isolation_level=None, check_same_thread=False
        )


def lock_for_writing(path: Path, patience: int = 500) -> sqlite3.Connection:
    """Hold the run's write lock: SQLite's lock on an empty file, freed even by kill -9.

    `patience` milliseconds outlast `is_locked`, which holds it for a moment.
    """
    lock = connect(path, path.with_name(path.name + ".lock").resolve().as_uri() + "?mode=rwc")
    try:
        lock.execute(f"PRAGMA busy_timeout = {patience}")
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        lock.close()
        raise JournalBusyError(
            f"The journal {path} cannot be locked for writing ({error}): another run may be using "
            "it. Wait for that run or stop it, or give this run another name."
        ) from error
    return lock


def is_locked(path: Path) -> bool:
    """Whether a process, this one included, has the journal open for writing."""
    if not path.with_name(path.name + ".lock").is_file():
        return False
    try:
        lock_for_writing(path, patience=0).close()
    except JournalError:
        return True
    return False


def create_tables(path: Path, database: sqlite3.Connection) -> None:
    """Make an empty file a journal; raises JournalError for a file that is something else."""
    if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        check_version(path, database)
        _create_indices(database)
        return
    database.execute("BEGIN IMMEDIATE")
    for table, columns in _TABLES.items():
        database.execute(f"CREATE TABLE {table} ({columns})")
        for change in ("UPDATE", "DELETE"):
            database.execute(
                f"CREATE TRIGGER no_{change.lower()}_{table} BEFORE {change} ON {table} "
                "BEGIN SELECT RAISE(ABORT, 'a journal only grows'); END"
            )
    _create_indices(database)
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    database.execute("COMMIT")


def _create_indices(database: sqlite3.Connection) -> None:
    for name, columns in _INDICES.items():
        database.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {columns}")


def set_durability(path: Path, database: sqlite3.Connection) -> None:
    """Let a committed batch survive kill -9, and a power cut tear nothing."""
    # Readers do not wait for a write-ahead log. A power cut may take back its last batches, in
    # order: they are run again. Waiting for the disk at every batch (FULL) would cost a fast run
    # several per cent.
    wanted = "DELETE" if is_network_drive(path) else "WAL"
    got = database.execute(f"PRAGMA journal_mode = {wanted}").fetchone()[0]
    database.execute(f"PRAGMA synchronous = {'NORMAL' if got == 'wal' else 'FULL'}")


def check_version(path: Path, database: sqlite3.Connection) -> None:
    """Raises JournalError for a file of another schema."""
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA_VERSION:
        raise JournalError(
            f"The file {path} has journal version {version} and this program reads "
            f"{SCHEMA_VERSION}: use the version of comfyui-calibri that wrote it, or give this run "
            "another name."
        )


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """SQLite's errors within become a JournalError that names the file and the mend."""
    try:
        yield
    except sqlite3.Error as error:
        raise JournalError(
            f"The journal {path} cannot be used ({error}): see that it is a calibration journal, "
            "that its disk has space and that you may write there; what it already holds is kept."
        ) from error
