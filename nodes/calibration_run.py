"""One calibration within one prompt, from its inputs to its preset.

Finds the run's folder, hands the loop to `calibri/calibration.py` with ComfyUI's sampler as
evaluator, and shows how it goes. Cancelled, it goes on from its journal when it is called with the
same settings again. `background/` has the run that advances while ComfyUI is idle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from comfy.model_management import InterruptProcessingException

from ..calibri.calibration import calibrate
from ..calibri.journal import Journal
from ..calibri.stop_request import heeding
from . import runs
from .album import Album, PicturedEvaluator
from .background import job
from .best_so_far import BestSoFar, keep_recommended
from .calibration_inputs import prepare
from .calibration_result import RunResult, conclude
from .model_origin import Graph
from .progress import Progress
from .run_settings import keep_settings, settings_of
from .start_note import with_start

if TYPE_CHECKING:
    from ..calibri.outcome import GenerationSummary
    from ..calibri.session import Session


def run_calibration(
    run_name: str,
    say: Callable[[str], None],
    graph: Graph | None = None,
    node: str = "",
    **inputs: Any,
) -> RunResult:
    """Calibrate, or go on with, the run of these inputs (`prepare`); `say` hears how it goes.

    `graph` is the prompt that they come from, by its node `node`.

    Raises ValueError with one sentence for what does not fit together, before anything is sampled;
    whatever is raised later leaves the run's journal resumable.
    """
    prepared, start = prepare(**inputs), inputs.get("start_from")
    if start is not None:  # before hours are spent on what was not meant
        say(with_start("", start, prepared).strip())
    config, space, evaluator = prepared.config, prepared.space, prepared.evaluator
    folder = runs.run_folder(run_name, prepared.settings)
    settings = settings_of(run_name, inputs, prepared, graph or {}, node)
    if evaluator.preview is not None:
        evaluator.preview.say = say
    progress = Progress(evaluator, space, config.validation_samples(), say)
    keep = BestSoFar(folder.name, prepared)
    # Pages hear last of all that the journal is free again.
    with job.in_prompt(folder.name) as watched, Journal.open(folder / runs.JOURNAL) as journal:
        if evaluator.preview is not None:
            evaluator.preview.remember(journal)
        heed = heeding(folder, InterruptProcessingException)
        told = (progress,) if watched is None else (progress, watched)

        def on_generation(summary: GenerationSummary) -> None:
            for each in told:
                each.on_generation(summary)

        def on_batch(done: int, total: int) -> None:
            for each in told:
                each.on_batch(done, total)

        def between(session: Session) -> None:
            keep(session)
            heed(session)

        outcome = calibrate(
            config,
            space,
            PicturedEvaluator(evaluator, Album(folder, prepared)),
            journal,
            on_generation,
            on_batch,
            prepared.versions,
            between,
            # Not before: another process may be at work on it.
            lambda: keep_settings(folder, settings, start),
        )
        result = conclude(prepared, folder.name, outcome, journal)
        keep_recommended(folder.name)
    return replace(result, text=with_start(result.text, start, prepared))
