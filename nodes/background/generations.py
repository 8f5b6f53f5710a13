"""A run's generations as numbers, read from its journal, of which each is read once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import runs

if TYPE_CHECKING:
    from ...calibri.evaluation import Floats
    from ...calibri.journal import Evaluation, Journal
    from ...calibri.selection import Interval

MOST_VECTORS = 256  # told of one run, so that a long one stays a few hundred kB


class Generations:
    """The whole generations of the run in `folder`, as far as they have been read."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / runs.JOURNAL
        self._lock = threading.Lock()
        self._rows: list[dict[str, Any]] = []
        self._means: dict[int, Floats] = {}
        """Of each validated generation: the reward of each held-out prompt."""
        self._best: tuple[int, int, Interval] | None = None
        self.sigmas: dict[int, float] = {}
        """The search's sigma in generations that ran since ComfyUI's start."""

    def since(self, first: int, budget: int) -> list[dict[str, Any]]:
        """For each whole generation from `first` on: generation; its candidates' mean, best and
        worst reward; sigma, where it ran since ComfyUI's start; step, how far a coefficient of a
        candidate is from their mean (root mean square, which is sigma but for chance); images and
        seconds; validation, and its gain over the plain model (mean, low and high of the paired
        95 % interval), where validated; vector, the candidates' mean [D], of every so many
        generations of a run of `budget` generations and of the last.

        Generation 0 has the plain model's validation and vector alone. The last row may still get
        its validation: ask from it on again. Raises JournalError for a journal that cannot be read.
        """
        with self._lock:
            self._read()
            rows = self._rows
            return [self._row(row, budget, row is rows[-1]) for row in rows[first:]]

    def last(self) -> int:
        """The last whole generation; raises as `since` does."""
        with self._lock:
            self._read()
            return max(0, len(self._rows) - 1)

    def best(self, seed: int) -> tuple[int, float, float, Interval] | None:
        """The best validated mean so far: its generation, its reward, the plain model's, and the
        gain, whose interval makes allowance for the choice. None before the first validation.
        """
        from ...calibri.selection import chosen_interval

        with self._lock:
            self._read()
            if not self._means:
                return None
            rewards = {generation: float(m.mean()) for generation, m in self._means.items()}
            found = min(rewards, key=lambda g: (-rewards[g], abs(g)))
            plain = self._means[0]
            if self._best is None or self._best[:2] != (len(rewards), found):
                considered = np.stack([means - plain for means in self._means.values()])
                gain = chosen_interval(self._means[found] - plain, considered, seed)
                self._best = (len(rewards), found, gain)
            return found, rewards[found], rewards[0], self._best[2]

    def coordinates(self) -> list[str]:
        """The names of a vector's D numbers, in order; empty before the journal is begun."""
        if not self._path.is_file():
            return []
        from ...calibri.journal import Journal

        with Journal.read(self._path) as journal:
            return list((journal.config() or {}).get("coefficients", ()))

    def _read(self) -> None:
        """Read what has ended since."""
        from ...calibri.journal import Journal

        if self._path.is_file():
            with Journal.read(self._path) as journal:
                if len(self._rows) > 1:
                    self._rows.pop()  # its validation may have come
                self._read_on(journal)

    def _read_on(self, journal: Journal) -> None:
        from ...calibri.selection import START

        rows = self._rows
        plain = journal.evaluation("validation", 0)
        if plain is None or plain.pending:
            return
        if not rows:
            self._means = _prompt_means(plain, (0, START))
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
                    **self._validation(journal, number),
                    "vector": centre,
                }
            )

    def _validation(self, journal: Journal, number: int) -> dict[str, Any]:
        from ...calibri.selection import mean_interval

        evaluation = journal.evaluation("validation", number)
        if evaluation is None or evaluation.pending:
            return {"validation": None, "gain": None}
        self._means |= _prompt_means(evaluation, (number,))
        gain = mean_interval(self._means[number] - self._means[0])
        return {
            "validation": float(evaluation.rewards[0].mean()),
            "gain": {"mean": gain.mean, "low": gain.low, "high": gain.high},
        }

    def _row(self, row: dict[str, Any], budget: int, is_last: bool) -> dict[str, Any]:
        number, stride = row["generation"], 1
        while budget > MOST_VECTORS * stride:
            stride *= 2
        unknown = dict.fromkeys(("mean", "best", "worst", "step", "images", "seconds"))
        is_told = is_last or number % stride == 0
        vector = np.round(row["vector"], 4).tolist() if is_told else None
        return {**unknown, **row, "sigma": self.sigmas.get(number), "vector": vector}


def _prompt_means(evaluation: Evaluation, generations: tuple[int, ...]) -> dict[int, Floats]:
    """The reward of each prompt, for each vector of a validation. A warm start's preset is
    validated beside the plain model, in a row of its own."""
    from ...calibri.selection import prompt_means

    return {
        generation: prompt_means(rewards, evaluation.bucket)
        for generation, rewards in zip(generations, evaluation.rewards, strict=False)
    }
