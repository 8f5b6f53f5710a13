"""The best that a run has found so far, as a preset in its folder: it can be used while the run
goes on for days, or after it was killed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..calibri.atomic_file import write_atomically
from . import folders, runs

if TYPE_CHECKING:
    from ..calibri.outcome import Best
    from ..calibri.selection import Interval
    from ..calibri.session import Session
    from .calibration_inputs import Prepared

# Once a choice is made, what is kept is that choice, not what was promised.
CHOSEN = ("confirmation", "judging", "done")


class BestSoFar:
    """Called between two batches of a run: keeps the best where there is a new one."""

    def __init__(self, run_id: str, prepared: Prepared) -> None:
        self._run_id, self._prepared = run_id, prepared
        self._kept: tuple[int, Interval] | None = None

    def __call__(self, session: Session) -> None:
        best = session.best()
        if best is None or session.phase in CHOSEN or self._kept == (best.generation, best.gain):
            return
        self._kept = (best.generation, best.gain)
        try:
            save_best(self._run_id, self._prepared, best)
        except OSError as error:  # the run itself goes on without
            logging.warning("Calibri: the best so far of %s is not saved: %s", self._run_id, error)


def save_best(run_id: str, prepared: Prepared, best: Best) -> None:
    """Save the preset of the best validated mean so far, in the run's folder and for its user.

    There is none where that is the plain model.
    """
    from ..calibri.presets import save_preset
    from .calibration_result import make_preset, searched_change

    if best.generation == 0:
        return
    config = prepared.config
    samples = len(config.validation_samples())
    change = searched_change(config.reward, best.plain, best.reward, best.gain, samples)
    preset, output = make_preset(prepared, best.vector, (change,)), runs.output_folder(run_id)
    save_preset(runs.runs_folder() / run_id / runs.PRESET, preset, overwrite=True)
    folders.make_folder(output)
    save_preset(output / runs.PRESET, preset, overwrite=True)


def keep_recommended(run_id: str) -> None:
    """Copy the preset that a finished run recommends from its output folder to its own.

    Where it recommends the plain model, what was the best so far goes.
    """
    recommended = runs.output_folder(run_id) / runs.PRESET
    kept = runs.runs_folder() / run_id / runs.PRESET
    if recommended.is_file():
        write_atomically(kept, recommended.read_bytes())
    else:
        kept.unlink(missing_ok=True)
