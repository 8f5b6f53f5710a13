"""A run's generations as numbers, read from its journal, of which each is read once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import runs
from .run import Run

if TYPE_CHECKING:
    from ...calibri.journal import Evaluation, Journal

MOST_VECTORS = 256  # told of one run, so that a long one stays a few hundred kB


def generations_of(run: Run, since: int = 0) -> list[dict[str, Any]]:
    """For each whole generation from `since` on: generation; its candidates' mean, best and worst
    reward; sigma, where it ran since ComfyUI's start; step, how far a coefficient of a candidate is
    from their mean (root mean square, which is sigma but for chance); images and seconds;
    validation, and its gain over the plain model (mean, low and high of the paired 95 % interval),
    where validated; vector, the candidates' mean [D], of every so many generations and of the last.

    Generation 0 has the plain model's validation and vector alone. The last row may still get its
    validation: ask from it on again. Raises JournalError for a journal that cannot be read.
    """
    path = run.folder / runs.JOURNAL
    with run.rows_lock:
        rows = run.rows
        if run.record.progress.images == 0:  # the journal may be in the making
            return []
        if path.is_file():
            from ...calibri.journal import Journal

            with Journal.read(path) as journal:
                _read_on(rows, journal, run)
        told = [_row(run, row, row is rows[-1]) for row in rows[since:]]
        if path.is_file() and len(rows) > 1:
            rows.pop()  # its validation may still come
        return told


def coordinates_of(run: Run) -> list[str]:
    """The names of a vector's D numbers, in order; empty before the journal is begun."""
    path = run.folder / runs.JOURNAL
    if not path.is_file():
        return []
    from ...calibri.journal import Journal

    with Journal.read(path) as journal:
        return list((journal.config() or {}).get("coefficients", ()))


def _read_on(rows: list[dict[str, Any]], journal: Journal, run: Run) -> None:
    """Read what has ended since."""
    plain = journal.evaluation("validation", 0)
    if plain is None or plain.pending:
        return
    if run.plain_means is None:
        run.plain_means = _prompt_means(plain)
    if not rows:
        validation = {"validation": float(plain.rewards[0].mean()), "gain": None}
        rows.append({"generation": 0, **validation, "vector": plain.vectors[0]})
    while True:
        number = len(rows)
        evaluation = journal.evaluation("generation", number)
        if evaluation is None or evaluation.pending:
            return
        means, vectors = evaluation.rewards.mean(axis=1), evaluation.vectors
        centre = vectors.mean(axis=0)
        rows.append(
            {
                "generation": number,
                "mean": float(means.mean()),
                "best": float(means.max()),
                "worst": float(means.min()),
                "step": float(np.sqrt(np.mean((vectors - centre) ** 2))),
                "images": evaluation.done,
                "seconds": evaluation.seconds,
                **_validation(journal.evaluation("validation", number), run.plain_means),
                "vector": centre,
            }
        )


def _validation(evaluation: Evaluation | None, plain: Any) -> dict[str, Any]:
    from ...calibri.selection import mean_interval

    if evaluation is None or evaluation.pending:
        return {"validation": None, "gain": None}
    gain = mean_interval(_prompt_means(evaluation) - plain)
    return {
        "validation": float(evaluation.rewards[0].mean()),
        "gain": {"mean": gain.mean, "low": gain.low, "high": gain.high},
    }


def _prompt_means(evaluation: Evaluation) -> Any:
    from ...calibri.selection import prompt_means

    return prompt_means(evaluation.rewards[0], evaluation.bucket)


def _row(run: Run, row: dict[str, Any], is_last: bool) -> dict[str, Any]:
    number, stride = row["generation"], 1
    while run.record.progress.generations > MOST_VECTORS * stride:
        stride *= 2
    unknown = dict.fromkeys(("mean", "best", "worst", "step", "images", "seconds"))
    vector = np.round(row["vector"], 4).tolist() if is_last or number % stride == 0 else None
    return {**unknown, **row, "sigma": run.sigmas.get(number), "vector": vector}
