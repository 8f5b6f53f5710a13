"""What a calibration in ComfyUI leaves: its preset, and at the end its report and pictures."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..calibri.before_after import before_and_after
from ..calibri.calibration import Outcome
from ..calibri.evaluation import Floats
from ..calibri.figure import draw_report
from ..calibri.journal import Journal
from ..calibri.presets import Preset, RewardChange, describe_members, fingerprint, save_preset
from ..calibri.report import build_report, save_picture, save_report
from ..calibri.selection import START, Interval
from . import folders, identity, runs
from .calibration_inputs import Prepared
from .patching import diffusion_model

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
    """Save what a finished run found and draw its report; samples the report's pictures."""
    config, folder = prepared.config, runs.output_folder(run_id)
    numbers = build_report(outcome, prepared.space, journal)
    samples = len(config.confirmation_samples(outcome.generations))
    preview = prepared.evaluator.preview
    agreement = None if preview is None else preview.agreement
    if agreement is not None:
        numbers["preview_decoder"] = agreement.record()
    change = measured(config.reward, outcome.before.mean, outcome.after.mean, outcome.gain, samples)
    preset = make_preset(prepared, outcome.vector, change)
    folders.make_folder(folder)
    save_preset(folder / runs.PRESET, preset, overwrite=True)
    save_report(folder / runs.REPORT, numbers)
    before, after, captions = _pictures(prepared, outcome)
    report = draw_report(numbers, before, after, captions)
    save_picture(folder / runs.REPORT_PICTURE, report)
    save_picture(folder / runs.BEFORE_AFTER, before_and_after(before, after))
    return RunResult(
        preset=preset,
        report=torch.from_numpy(report.astype(np.float32) / 255.0)[None],
        pictures=[runs.as_output(folder / n) for n in (runs.REPORT_PICTURE, runs.BEFORE_AFTER)],
        text=_summary(prepared, outcome, preset, folder)
        + ("" if agreement is None else f" {agreement.sentence}"),
    )


def make_preset(prepared: Prepared, vector: Floats, change: RewardChange | None) -> Preset:
    """The preset with this vector [D] and the gain that was measured for it."""
    model, space, config = prepared.model, prepared.space, prepared.config
    base = identity.file_name(model)
    return Preset(
        family=space.backbone.family,
        blocks=dict(space.backbone.blocks),
        granularity=space.granularity,
        members=space.preset_members(vector),
        guidance=space.guidance,
        title=f"{base}: {config.reward}",
        base_model=base,
        fingerprint=fingerprint(diffusion_model(model)),
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        sampling={name: value for name, value in config.sampling.items() if name in _TOLD},
        rewards=() if change is None else (change,),
    )


def measured(
    reward: str, before: float, after: float, gain: Interval, samples: int
) -> RewardChange:
    """The change of the searched reward, as a preset tells it."""
    return RewardChange(
        name=reward,
        before=before,
        after=after,
        low=gain.low,
        high=gain.high,
        samples=samples,
        searched=True,
    )


def _pictures(prepared: Prepared, outcome: Outcome) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Pictures of held-out prompts, plain and calibrated [P, H, W, 3], and their prompts."""
    evaluator, identity_ = prepared.evaluator, prepared.space.identity
    shown = prepared.config.confirmation_samples(outcome.generations)[:PICTURED]
    before, after = evaluator.images(np.stack([identity_, outcome.vector]), shown)
    return before, after, [evaluator.prompts[sample.prompt] for sample in shown]


def _summary(prepared: Prepared, outcome: Outcome, preset: Preset, folder: Path) -> str:
    config, gain = prepared.config, outcome.gain
    where = f"Everything is in {folder}."
    if preset.is_ensemble:
        where = f"{describe_members(preset)} {where}"
    if outcome.generation == 0:
        return (
            f"After {outcome.generations} generations nothing was better than the plain model "
            f"({config.reward} {outcome.before.mean:.4g} on {len(config.validation_prompts)} "
            f"held-out prompts), so the preset changes nothing. {where}"
        )
    found = f"from generation {outcome.generation} of {outcome.generations}"
    if outcome.generation == START:
        found = f"the preset it began at, which {outcome.generations} generations did not better"
    return (
        f"{config.reward} on {len(config.validation_prompts)} held-out prompts: "
        f"{outcome.before.mean:.4g} plain, {outcome.after.mean:.4g} calibrated, "
        f"gain {gain.mean:+.4g} (95 % interval {gain.low:+.4g} to {gain.high:+.4g}), "
        f"{found}. {where}"
    )
