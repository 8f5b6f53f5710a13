"""A run's generations as numbers, read from its journal, of which each is read once."""

from __future__ import annotations

from typing import Any

from .. import runs
from .run import Run


def generations_of(run: Run) -> list[dict[str, Any]]:
    """For each whole generation: generation, mean, best, sigma and validation, where known.

    Generation 0 has the plain model's validation alone. Raises JournalError for a journal that
    cannot be read.
    """
    from ...calibri.journal import Journal

    path = run.folder / runs.JOURNAL
    with run.rows_lock:
        rows = run.rows
        if run.record.progress.images == 0:  # the journal may be in the making
            return []
        if not path.is_file():
            return [_row(run, row) for row in rows]
        with Journal.read(path) as journal:
            plain = journal.evaluation("validation", 0)
            if plain is None or plain.pending:
                return []
            if not rows:
                rows.append({"generation": 0, "validation": float(plain.rewards[0].mean())})
            while True:
                number = len(rows)
                evaluation = journal.evaluation("generation", number)
                if evaluation is None or evaluation.pending:
                    break
                means = evaluation.rewards.mean(axis=1)
                validated = journal.evaluation("validation", number)
                rows.append(
                    {
                        "generation": number,
                        "mean": float(means.mean()),
                        "best": float(means.max()),
                        "validation": None
                        if validated is None or validated.pending
                        else float(validated.rewards[0].mean()),
                    }
                )
            told = [_row(run, row) for row in rows]
            if len(rows) > 1:
                rows.pop()  # its validation may still come
        return told


def _row(run: Run, row: dict[str, Any]) -> dict[str, Any]:
    number = row["generation"]
    return {"mean": None, "best": None, **row, "sigma": run.sigmas.get(number)}
