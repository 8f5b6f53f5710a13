"""The report of a calibration: its numbers as JSON, its picture as PNG.

`build_report` gathers the numbers, `figure.py` draws them. Nothing is measured here: all of it is
in the journal or was computed by `calibrate`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .atomic_file import write_atomically
from .configuration import library_versions
from .evaluation import Floats
from .journal import Journal
from .selection import START, mean_interval, prompt_means
from .verdict import objections, verdict

if TYPE_CHECKING:
    from .calibration import Outcome
    from .ensemble_space import EnsembleSpace
    from .pilot import Pilot
    from .stopping import Prospect

REPORT_VERSION = 2


def build_report(outcome: Outcome, space: EnsembleSpace, journal: Journal) -> dict[str, Any]:
    """All numbers of a run as JSON values. Rewards are in the reward's own unit.

    Keys: report_version, run (the settings; prompts as counts), before, after, gain (mean, low,
    high of the 95 % interval over prompts), recommended (generation, members with weight and
    coefficients by name), plain_weights (the plain model's), generations, validations, finalists,
    counts (evaluations, images, seconds), versions, gain_shown (whether its interval excludes 0),
    kept_anyway, judges (name, before, after, change and samples of each other reward and of
    diversity), failed_judges (why each of them could not judge), verdict and objections (in words),
    pilot (what its first generations said the run would cost and gain) and stopped (why the search
    ended before its budget), both null where there
    is nothing to say. Generation 0 is the plain model and −1 the preset that the search began at.
    """
    settings = journal.config() or {}
    run = {name: value for name, value in settings.items() if name != "coefficients"}
    for prompts in ("prompts", "validation_prompts"):
        run[prompts] = len(run.get(prompts, ()))
    evaluations = journal.evaluations()
    return {
        "report_version": REPORT_VERSION,
        "run": {**run, "generations": outcome.generations},
        "before": asdict(outcome.before),
        "after": asdict(outcome.after),
        "gain": asdict(outcome.gain),
        "gain_shown": outcome.gain.low > 0,
        "kept_anyway": outcome.kept_anyway,
        "judges": [asdict(judgement) for judgement in outcome.judgements],
        "failed_judges": dict(outcome.failed_judges),
        "verdict": verdict(outcome, run.get("reward", ""), run["validation_prompts"]),
        "objections": objections(outcome, run.get("reward", "")),
        "recommended": {
            "generation": outcome.generation,
            "members": [asdict(member) for member in space.preset_members(outcome.vector)],
        },
        "plain_weights": [member.weight for member in space.preset_members(space.identity)],
        "generations": [
            {
                "generation": summary.generation,
                "mean": summary.mean,
                "std": summary.std,
                "best": summary.best,
                "worst": summary.worst,
                "sigma": summary.sigma,
                "seconds": summary.seconds,
            }
            for summary in outcome.history
        ],
        "validations": _validations(journal),
        "finalists": [
            {
                "generation": finalist.generation,
                "validation": finalist.validation,
                "selection": finalist.selection,
                "recommended": finalist.generation == outcome.generation,
            }
            for finalist in outcome.finalists
        ],
        "counts": {
            "evaluations": sum(len(evaluation.vectors) for evaluation in evaluations),
            "images": sum(evaluation.done for evaluation in evaluations),
            "seconds": sum(evaluation.seconds for evaluation in evaluations),
        },
        "pilot": _told(outcome.pilot),
        "stopped": _told(outcome.stopped),
        "versions": library_versions(),
    }


def _told(said: Pilot | Prospect | None) -> dict[str, Any] | None:
    return None if said is None else {**asdict(said), "sentence": said.sentence}


def _validations(journal: Journal) -> list[dict[str, Any]]:
    """Each validated mean's reward, and its gain over the identity on the same images."""
    means: dict[int, Floats] = {}
    for evaluation in sorted(journal.evaluations("validation"), key=lambda e: e.generation):
        # Beside the plain model a warm start's preset was validated, in a row of its own.
        rows = zip((evaluation.generation, START), evaluation.rewards, strict=False)
        for generation, rewards in rows:
            means[generation] = prompt_means(rewards, evaluation.bucket)
    return [
        {
            "generation": generation,
            **asdict(mean_interval(rewards)),
            "gain": asdict(mean_interval(rewards - means[0])),
        }
        for generation, rewards in means.items()
    ]


def save_report(path: Path | str, report: dict[str, Any]) -> None:
    """Write a report as JSON; the file is whole or not there. Raises OSError with the mend."""
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    _replace_file(Path(path), text.encode())


def save_picture(path: Path | str, picture: NDArray[np.uint8]) -> None:
    """Write a picture [H, W, 3] as PNG; the file is whole or not there. Raises OSError."""
    from PIL import Image

    data = BytesIO()
    Image.fromarray(picture).save(data, format="png")
    _replace_file(Path(path), data.getvalue())


def _replace_file(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        raise OSError(
            error.errno,
            f"The report {path} could not be written ({error.strerror}): free some disk space "
            "or name another folder; the run itself is kept in its journal.",
        ) from error
