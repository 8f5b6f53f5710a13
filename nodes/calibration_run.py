"""One calibration in ComfyUI, from its inputs to its preset.

Gathers what the run is, finds its folder, hands the loop to `calibri/calibration.py` with ComfyUI's
sampler as evaluator, and turns its outcome into a preset and pictures. Cancelled, it goes on from
its journal when it is called with the same settings again.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import comfy.samplers
import numpy as np
import torch

from ..calibri.calibration import Outcome, RunConfig, calibrate
from ..calibri.coefficients import coefficient_space
from ..calibri.configuration import run_record
from ..calibri.ensemble_space import EnsembleSpace, ensemble_space
from ..calibri.evaluation import Floats
from ..calibri.figure import draw_report
from ..calibri.journal import Journal
from ..calibri.presets import (
    Guidance,
    Preset,
    RewardChange,
    describe_members,
    fingerprint,
    save_preset,
)
from ..calibri.report import build_report, save_picture, save_report
from ..calibri.selection import START
from ..calibri.warm_start import warm_start
from . import identity, runs
from .patching import backbone_of, diffusion_model
from .progress import Progress, before_and_after
from .sampling import ComfyEvaluator, SamplerSettings

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

    from ..rewards.protocol import Reward

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


def run_calibration(
    *,
    model: ModelPatcher,
    clip: CLIP,
    vae: VAE,
    prompts: tuple[str, ...],
    held_out: tuple[str, ...],
    reward: Reward,
    negative: str,
    sampler: str,
    scheduler: str,
    steps: int,
    cfg: float,
    guidance: float,
    width: int,
    height: int,
    granularity: str,
    profile: str,
    generations: int,
    seed: int,
    run_name: str,
    bucket_size: int,
    validate_every: int,
    say: Callable[[str], None],
    members: int = 1,
    guided_members: bool = False,
    start_from: Preset | None = None,
) -> RunResult:
    """Calibrate, or go on with, the run of these settings; `say` hears how it goes.

    Raises ValueError with one sentence for what does not fit together, before anything is sampled;
    whatever is raised later leaves the run's journal resumable.
    """
    space = _space(model, granularity, members, cfg if guided_members else None, start_from)
    settings = SamplerSettings(sampler, scheduler, steps, cfg, guidance, width, height, negative)
    config = RunConfig(
        prompts=prompts,
        validation_prompts=held_out,
        reward=reward.name,
        generations=generations,
        seed=seed,
        profile=profile,
        bucket_size=bucket_size,
        validate_every=validate_every,
        sampling={
            **asdict(settings),
            # Nodes such as ModelSamplingFlux change the schedule.
            "sigmas": comfy.samplers.calculate_sigmas(
                model.get_model_object("model_sampling"), scheduler, steps
            ).tolist(),
            "model": identity.identity(model),
            "text_encoder": identity.identity(clip.patcher),
            "vae": identity.identity(vae.patcher),
        },
    )
    evaluator = ComfyEvaluator(model, clip, vae, reward, space, settings, config.all_prompts)
    folder = runs.run_folder(run_name, run_record(config, space))
    progress = Progress(evaluator, space, config.validation_samples(), say)
    with Journal.open(folder / runs.JOURNAL) as journal:
        outcome = calibrate(
            config, space, evaluator, journal, progress.on_generation, progress.on_batch
        )
        numbers = build_report(outcome, space, journal)
    preset = _preset(model, space, config, outcome)
    save_preset(folder / runs.PRESET, preset, overwrite=True)
    save_report(folder / runs.REPORT, numbers)
    before, after, captions = _pictures(evaluator, space.identity, config, outcome)
    report = draw_report(numbers, before, after, captions)
    save_picture(folder / runs.REPORT_PICTURE, report)
    save_picture(folder / runs.BEFORE_AFTER, before_and_after(before, after))
    return RunResult(
        preset=preset,
        report=torch.from_numpy(report.astype(np.float32) / 255.0)[None],
        pictures=[runs.as_output(folder / n) for n in (runs.REPORT_PICTURE, runs.BEFORE_AFTER)],
        text=_summary(config, outcome, preset, folder),
    )


def _space(
    model: ModelPatcher, granularity: str, members: int, scale: float | None, start: Preset | None
) -> EnsembleSpace:
    """What the run searches; `scale` is the CFG scale that guided members start from."""
    coefficients = coefficient_space(backbone_of(model), granularity)
    guidance = None
    if scale is not None:
        members = max(members, 2)  # 1, the widget's default, is no wish
        known = None if start is None else start.guidance
        guidance = Guidance(scale, rescale=known is not None and known.rescale)
    space = ensemble_space(coefficients, members, guidance)
    if start is None:
        return space
    begin = warm_start(start, coefficients, members, guidance)
    return ensemble_space(coefficients, members, guidance, begin)


def _pictures(
    evaluator: ComfyEvaluator, identity: Floats, config: RunConfig, outcome: Outcome
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Pictures of held-out prompts, plain and calibrated [P, H, W, 3], and their prompts."""
    shown = config.confirmation_samples(outcome.generations)[:PICTURED]
    before, after = evaluator.images(np.stack([identity, outcome.vector]), shown)
    return before, after, [evaluator.prompts[sample.prompt] for sample in shown]


def _preset(
    model: ModelPatcher, space: EnsembleSpace, config: RunConfig, outcome: Outcome
) -> Preset:
    base = identity.file_name(model)
    return Preset(
        family=space.backbone.family,
        blocks=dict(space.backbone.blocks),
        granularity=space.granularity,
        members=space.preset_members(outcome.vector),
        guidance=space.guidance,
        title=f"{base}: {config.reward}",
        base_model=base,
        fingerprint=fingerprint(diffusion_model(model)),
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        sampling={name: value for name, value in config.sampling.items() if name in _TOLD},
        rewards=(
            RewardChange(
                name=config.reward,
                before=outcome.before.mean,
                after=outcome.after.mean,
                low=outcome.gain.low,
                high=outcome.gain.high,
                samples=len(config.confirmation_samples(outcome.generations)),
                searched=True,
            ),
        ),
    )


def _summary(config: RunConfig, outcome: Outcome, preset: Preset, folder: Path) -> str:
    gain, where = outcome.gain, f"Everything is in {folder}."
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
