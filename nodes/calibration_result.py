"""What a calibration in ComfyUI leaves: its preset, and at the end its report and pictures."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..calibri.before_after import before_and_after
from ..calibri.calibration import Outcome
from ..calibri.evaluation import Floats
from ..calibri.figure import draw_report
from ..calibri.journal import Journal
from ..calibri.judging import DIVERSITY, Judgement
from ..calibri.preset_metadata import held_out
from ..calibri.presets import Preset, RewardChange, describe_members, save_preset
from ..calibri.report import build_report, save_picture, save_report
from ..calibri.selection import Interval
from ..calibri.thumbnail import draw_thumbnail
from ..calibri.verdict import judged, objections, verdict
from . import folders, runs
from .calibration_inputs import Prepared
from .run_settings import copy_settings

PICTURED = 8  # confirmation samples in the before/after grid
# Of a run's sampling settings, those that its preset tells its users.
_TOLD = ("sampler", "scheduler", "steps", "cfg", "guidance", "width", "height")


@dataclass(frozen=True)
class RunResult:
    """What a finished run shows: `report` is an IMAGE, `pictures` name its files to the page."""

    preset: Preset
    report: torch.Tensor
    pictures: list[dict[str, str]]
    text: str


def conclude(prepared: Prepared, run_id: str, outcome: Outcome, journal: Journal) -> RunResult:
    """Save what a finished run found and draw its report; samples the report's pictures.

    Where nothing was better than the plain model there is no preset to save, and one that was saved
    of this run before goes.
    """
    config, folder = prepared.config, runs.output_folder(run_id)
    numbers = build_report(outcome, prepared.space, journal)
    preview = prepared.evaluator.preview
    agreement = None if preview is None else preview.agreement
    if agreement is not None:
        numbers["preview_decoder"] = agreement.record()
    preset = _found_preset(prepared, outcome)
    folders.make_folder(folder)
    if outcome.generation == 0:
        (folder / runs.PRESET).unlink(missing_ok=True)
    else:
        save_preset(folder / runs.PRESET, preset, overwrite=True)
    save_report(folder / runs.REPORT, numbers)
    copy_settings(run_id, folder)
    before, after, captions = _pictures(prepared, outcome)
    if outcome.generation != 0:  # saved without them as well, should somebody cancel meanwhile
        preset = replace(preset, thumbnail=draw_thumbnail(before, after))
        save_preset(folder / runs.PRESET, preset, overwrite=True)
    report = draw_report(numbers, before, after, captions)
    save_picture(folder / runs.REPORT_PICTURE, report)
    save_picture(folder / runs.BEFORE_AFTER, before_and_after(before, after))
    said = [
        verdict(outcome, config.reward, len(config.validation_prompts)),
        *judged(outcome),
        *objections(outcome, config.reward),
    ]
    if outcome.stopped is not None:
        said.append(outcome.stopped.sentence)
    said += _where(outcome, preset, folder)
    if agreement is not None:
        said.append(agreement.sentence)
    return RunResult(
        preset=preset,
        report=torch.from_numpy(report.astype(np.float32) / 255.0)[None],
        pictures=[runs.as_output(folder / n) for n in (runs.REPORT_PICTURE, runs.BEFORE_AFTER)],
        text=" ".join(said),
    )


def make_preset(
    prepared: Prepared,
    vector: Floats,
    rewards: tuple[RewardChange, ...] = (),
    diversity: RewardChange | None = None,
) -> Preset:
    """The preset with this vector [D] and what was measured of it."""
    space, config, base = prepared.space, prepared.config, prepared.base_model
    return Preset(
        family=space.backbone.family,
        blocks=dict(space.backbone.blocks),
        granularity=space.granularity,
        members=space.preset_members(vector),
        guidance=space.guidance,
        title=f"{base}: {config.reward}",
        base_model=base,
        fingerprint=prepared.fingerprint,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        sampling={name: value for name, value in config.sampling.items() if name in _TOLD},
        rewards=rewards,
        diversity=diversity,
        prompts=held_out(config.validation_prompts) if rewards else None,
    )


def searched_change(
    reward: str, before: float, after: float, gain: Interval, samples: int
) -> RewardChange:
    """The change of the searched reward, as a preset tells it."""
    return RewardChange(reward, before, after, gain.low, gain.high, samples, searched=True)


def _found_preset(prepared: Prepared, outcome: Outcome) -> Preset:
    """The preset of a run that ended: the identity where nothing was better."""
    if outcome.generation == 0:
        return make_preset(prepared, outcome.vector)
    config = prepared.config
    samples = len(config.confirmation_samples(outcome.generations))
    searched = searched_change(
        config.reward, outcome.before.mean, outcome.after.mean, outcome.gain, samples
    )
    others = [_judged_change(found) for found in outcome.judgements if found.name != DIVERSITY]
    spread = outcome.diversity
    preset = make_preset(
        prepared,
        outcome.vector,
        (searched, *others),
        None if spread is None else _judged_change(spread),
    )
    if outcome.kept_anyway:
        return replace(preset, title=f"{preset.title} (no better than the plain model)")
    if not outcome.gain.low > 0:
        return replace(preset, title=f"{preset.title} (no gain shown)")
    return preset


def _judged_change(found: Judgement) -> RewardChange:
    return RewardChange(
        found.name,
        found.before.mean,
        found.after.mean,
        found.change.low,
        found.change.high,
        found.samples,
        searched=False,
    )


def _pictures(prepared: Prepared, outcome: Outcome) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Pictures of held-out prompts, plain and calibrated [P, H, W, 3], and their prompts."""
    evaluator, identity_ = prepared.evaluator, prepared.space.identity
    shown = prepared.config.confirmation_samples(outcome.generations)[:PICTURED]
    before, after = evaluator.images(np.stack([identity_, outcome.vector]), shown)
    return before, after, [evaluator.prompts[sample.prompt] for sample in shown]


def _where(outcome: Outcome, preset: Preset, folder: Path) -> list[str]:
    """What there is to look at."""
    if outcome.generation == 0:
        return [
            "No preset was saved, and the one that this node gives changes nothing; keep_anyway "
            f"would save the best of what was found. The report is in {folder}."
        ]
    members = [describe_members(preset)] if preset.is_ensemble else []
    return [*members, f"Everything is in {folder}."]
