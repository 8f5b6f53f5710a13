"""What the example workflows do with the demo model, without ComfyUI: a calibration, then an
evaluation of the preset it found, with the same search, journal and report files.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..calibri.before_after import before_and_after
from ..calibri.calibration import GenerationSummary, Outcome, RunConfig, calibrate
from ..calibri.coefficients import coefficient_space
from ..calibri.comparison import Setting
from ..calibri.comparison_course import compare
from ..calibri.comparison_files import ComparisonFiles, save_comparison
from ..calibri.comparison_report import build_comparison
from ..calibri.comparison_store import PartFolder
from ..calibri.comparison_words import sentences
from ..calibri.configuration import differences
from ..calibri.ensemble_space import EnsembleSpace, ensemble_space
from ..calibri.figure import draw_report
from ..calibri.journal import Journal
from ..calibri.preset_metadata import held_out
from ..calibri.presets import Preset, RewardChange, fingerprint, save_preset
from ..calibri.report import build_report, save_picture, save_report
from ..calibri.selection import Interval
from ..calibri.verdict import judged, objections, verdict
from .comparison import PROMPT_SEED, demo_comparison, evaluation_prompts
from .evaluator import DemoEvaluator
from .judges import FACTS
from .painter import SAMPLER, SCHEDULER
from .pictures import DemoModels
from .prompts import generate_prompts
from .scenes import IMAGE_SIZE
from .weights import DIT

JOURNAL, PRESET = "journal.sqlite", "preset.safetensors"
REPORT, REPORT_PICTURE, BEFORE_AFTER = "report.json", "report.png", "before_after.png"
DRAWN = "drawn"
"""Folder of an evaluation's finished batches."""
STEPS = 4
_LEFT = (PRESET, REPORT, REPORT_PICTURE, BEFORE_AFTER)
_PICTURED = 8  # prompts in before_after.png

Say = Callable[[str], None]
Count = Callable[[int, int], None]
"""(images done, images of all)."""


@dataclass(frozen=True)
class Effort:
    """How much is searched and measured. The search's numbers are the example workflow's."""

    generations: int = 30
    prompts: int = 512
    held_out: int = 256
    bucket_size: int = 16
    validate_every: int = 15
    seed: int = 1
    evaluated: int = 64
    """Prompts of the evaluation."""
    images_per_prompt: int = 2
    evaluated_steps: tuple[int, ...] = (2, 4, 8, 15, 30)


def calibrate_demo(
    models: DemoModels, folder: Path, effort: Effort, say: Say, count: Count | None = None
) -> tuple[Preset | None, Path]:
    """Calibrate, or go on with, the run in `folder`; its preset, and the folder that it got.

    There is no preset where nothing was better than the plain model.

    A run of other settings that lies there is left alone: this one gets `folder`-2 or so. `say`
    hears each generation and what came out, `count` of the images. Raises JournalError and OSError
    with the mend.
    """
    space = ensemble_space(coefficient_space(models.backbone, "gate"))
    config = RunConfig(
        prompts=tuple(generate_prompts(effort.prompts, PROMPT_SEED, "train")),
        validation_prompts=tuple(generate_prompts(effort.held_out, PROMPT_SEED, "test")),
        reward=models.reward.name,
        generations=effort.generations,
        seed=effort.seed,
        bucket_size=effort.bucket_size,
        validate_every=effort.validate_every,
        sampling={**_sampling(), "model": fingerprint(models.dit)},
        judges={FACTS: ""},
    )
    place = _place(folder, config, space)
    evaluator = DemoEvaluator(models, space, config.all_prompts, STEPS)
    with Journal.open(place / JOURNAL) as journal:
        outcome = calibrate(
            config, space, evaluator, journal, lambda summary: say(_words(summary)), count
        )
        numbers = build_report(outcome, space, journal)
    preset = _preset(models, config, space, outcome) if outcome.generation else None
    if preset is not None:
        save_preset(place / PRESET, preset, overwrite=True)
    save_report(place / REPORT, numbers)
    shown = config.confirmation_samples(outcome.generations)[:_PICTURED]
    before, after = evaluator.images(np.stack([space.identity, outcome.vector]), shown)
    captions = [config.all_prompts[sample.prompt] for sample in shown]
    save_picture(place / REPORT_PICTURE, draw_report(numbers, before, after, captions))
    save_picture(place / BEFORE_AFTER, before_and_after(before, after))
    for sentence in (
        verdict(outcome, config.reward, len(config.validation_prompts)),
        *judged(outcome),
        *objections(outcome, config.reward),
    ):
        say(sentence)
    return preset, place


def evaluate_demo(
    models: DemoModels,
    preset: Preset,
    folder: Path,
    effort: Effort,
    say: Say,
    count: Count | None = None,
) -> ComparisonFiles:
    """Compare the plain model and `preset` over numbers of steps; the report lies in `folder`.

    Batches that are finished are kept there, so that a second call goes on.
    """
    settings = tuple(
        Setting(steps, 1.0, SAMPLER, SCHEDULER, IMAGE_SIZE, IMAGE_SIZE)
        for steps in effort.evaluated_steps
    )
    prompts = evaluation_prompts(effort.evaluated)
    comparison, painter, about = demo_comparison(
        models, [preset], settings, prompts, effort.images_per_prompt, effort.seed
    )
    cells = compare(
        comparison,
        painter,
        PartFolder(folder / DRAWN),
        None if count is None else lambda progressed: count(progressed.done, progressed.total),
    )
    report = build_comparison(comparison, cells, about)
    files = save_comparison(folder, report, cells)
    for sentence in sentences(report):
        say(sentence)
    return files


def _sampling() -> dict[str, str | int | float]:
    """As the nodes call it, for the journal and for the preset's users."""
    return {
        "sampler": SAMPLER,
        "scheduler": SCHEDULER,
        "steps": STEPS,
        "cfg": 1.0,
        "width": IMAGE_SIZE,
        "height": IMAGE_SIZE,
    }


def _place(folder: Path, config: RunConfig, space: EnsembleSpace) -> Path:
    """The first of `folder`, `folder`-2, … that is free or holds this very run.

    Files without a journal are somebody's too: ComfyUI keeps its runs' journals elsewhere.
    """
    number, place = 1, folder
    while any((place / name).exists() for name in (JOURNAL, *_LEFT)):
        if (place / JOURNAL).exists():
            with Journal.open(place / JOURNAL) as journal:
                if not differences(journal, config, space):
                    break
        number += 1
        place = folder.with_name(f"{folder.name}-{number}")
    return place


def _preset(
    models: DemoModels, config: RunConfig, space: EnsembleSpace, outcome: Outcome
) -> Preset:
    base, gain = Path(DIT).name, outcome.gain
    samples = len(config.confirmation_samples(outcome.generations))
    return Preset(
        family=space.backbone.family,
        blocks=dict(space.backbone.blocks),
        granularity=space.granularity,
        members=space.preset_members(outcome.vector),
        title=f"{base}: {config.reward}",
        base_model=base,
        fingerprint=fingerprint(models.dit),
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        sampling=_sampling(),
        rewards=(
            _change(config.reward, outcome.before, outcome.after, gain, samples, searched=True),
            *(
                _change(found.name, found.before, found.after, found.change, found.samples)
                for found in outcome.judgements
            ),
        ),
        prompts=held_out(config.validation_prompts),
    )


def _change(
    name: str,
    before: Interval,
    after: Interval,
    change: Interval,
    samples: int,
    searched: bool = False,
) -> RewardChange:
    return RewardChange(name, before.mean, after.mean, change.low, change.high, samples, searched)


def _words(summary: GenerationSummary) -> str:
    validated = summary.validation
    held_out = "" if validated is None else f", {validated:.4g} on held-out prompts"
    return (
        f"Generation {summary.generation} of {summary.generations}: mean reward "
        f"{summary.mean:.4g}{held_out}"
    )
