"""Calibrate: search a model's coefficients inside one ComfyUI prompt.

The node gathers what a run is, hands the loop to `calibri/calibration.py` with ComfyUI's sampler as
evaluator, and turns its outcome into a preset and pictures. Cancelled, it goes on from its journal
when the same settings are queued again.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import comfy.samplers
import numpy as np
import torch
from comfy_api.latest import io

from ..calibri.coefficients import GRANULARITIES, coefficient_space
from ..calibri.configuration import RunConfig
from ..calibri.presets import Preset, RewardChange, fingerprint, save_preset
from ..calibri.prompts import split_prompts
from ..calibri.search import PROFILES
from . import folders, identity, runs, sockets
from .messages import show_on_node
from .patching import backbone_of, diffusion_model
from .progress import Progress, before_and_after
from .sampling import ComfyEvaluator, SamplerSettings

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

    from ..calibri.calibration import Outcome
    from ..calibri.coefficients import CoefficientSpace
    from ..rewards.protocol import Reward

MOST_HELD_OUT = 64  # prompts, where the node splits one list itself
PICTURED = 8  # confirmation samples in the before/after grid
# Of a run's sampling settings, those that its preset tells its users.
_TOLD = ("sampler", "scheduler", "steps", "cfg", "guidance", "width", "height")


class CalibriCalibrate(io.ComfyNode):
    """Searches coefficients that raise a reward."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriCalibrate",
            display_name="Calibrate",
            category="Calibri",
            description="Searches the coefficients of a diffusion transformer's residual branches "
            "that raise a reward, and measures the gain on held-out prompts. Cancel keeps what was "
            "done: the same settings go on where they stopped. Everything of a run is in "
            "output/calibri.",
            inputs=_inputs(),
            outputs=[
                sockets.Preset.Output(display_name="preset"),
                io.Image.Output(display_name="report"),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, run_name: str | None) -> bool | str:
        if run_name is None:  # linked; read when it is known
            return True
        try:
            folders.safe_name(run_name)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        clip: CLIP,
        vae: VAE,
        prompts: tuple[str, ...],
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
        held_out: tuple[str, ...] | None = None,
    ) -> io.NodeOutput:
        from ..calibri.calibration import calibrate
        from ..calibri.figure import draw_report
        from ..calibri.journal import Journal
        from ..calibri.report import build_report, save_picture, save_report

        space = coefficient_space(backbone_of(model), granularity)
        settings = SamplerSettings(
            sampler, scheduler, steps, cfg, guidance, width, height, negative
        )
        if held_out is None:
            split = split_prompts(prompts, max(2, min(MOST_HELD_OUT, len(prompts) // 4)), seed)
            prompts, held_out = split.training, split.held_out
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
                **vars(settings),
                "model": identity.identity(model),
                "text_encoder": identity.identity(clip.patcher),
                "vae": identity.identity(vae.patcher),
            },
        )
        evaluator = ComfyEvaluator(model, clip, vae, reward, space, settings, config.all_prompts)
        folder = runs.run_folder(run_name, runs.settings_of(config, space))
        progress = Progress(evaluator, space, config.validation_samples())
        with Journal.open(folder / runs.JOURNAL) as journal:
            outcome = calibrate(
                config, space, evaluator, journal, progress.on_generation, progress.on_batch
            )
            numbers = build_report(outcome, space, journal)
        preset = _preset(model, space, config, outcome)
        save_preset(folder / runs.PRESET, preset, overwrite=True)
        shown = config.confirmation_samples(outcome.generations)[:PICTURED]
        vectors = np.stack([space.identity, outcome.vector])
        before, after = evaluator.images(vectors, shown)
        captions = [evaluator.prompts[sample.prompt] for sample in shown]
        report = draw_report(numbers, before, after, captions)
        save_report(folder / runs.REPORT, numbers)
        save_picture(folder / runs.REPORT_PICTURE, report)
        save_picture(folder / runs.BEFORE_AFTER, before_and_after(before, after))
        text = _summary(config, outcome, folder)
        show_on_node(cls.hidden, text)
        image = torch.from_numpy(report.astype(np.float32) / 255.0)[None]
        pictures = [
            runs.as_output(folder / name) for name in (runs.REPORT_PICTURE, runs.BEFORE_AFTER)
        ]
        return io.NodeOutput(preset, image, ui={"images": pictures, "text": (text,)})


def _preset(
    model: ModelPatcher, space: CoefficientSpace, config: RunConfig, outcome: Outcome
) -> Preset:
    base = identity.file_name(model)
    return Preset(
        family=space.backbone.family,
        blocks=dict(space.backbone.blocks),
        granularity=space.granularity,
        coefficients=space.named(outcome.vector),
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


def _summary(config: RunConfig, outcome: Outcome, folder: Path) -> str:
    gain, where = outcome.gain, f"Everything is in {folder}."
    if outcome.generation == 0:
        return (
            f"After {outcome.generations} generations nothing was better than the plain model "
            f"({config.reward} {outcome.before.mean:.4g} on {len(config.validation_prompts)} "
            f"held-out prompts), so the preset changes nothing. {where}"
        )
    return (
        f"{config.reward} on {len(config.validation_prompts)} held-out prompts: "
        f"{outcome.before.mean:.4g} plain, {outcome.after.mean:.4g} calibrated, "
        f"gain {gain.mean:+.4g} (95 % interval {gain.low:+.4g} to {gain.high:+.4g}), "
        f"from generation {outcome.generation} of {outcome.generations}. {where}"
    )


def _inputs() -> list[io.Input]:
    """The node's inputs, in the order in which one decides about them."""
    return [
        io.Model.Input("model", tooltip="A FLUX.1 or SD3 / SD3.5 model."),
        io.Clip.Input("clip", tooltip="Encodes the prompts, once."),
        io.Vae.Input("vae", tooltip="Decodes the images that the reward sees."),
        sockets.Prompts.Input("prompts", tooltip="Prompts to search on, from a Prompt Set."),
        sockets.Prompts.Input(
            "held_out",
            optional=True,
            tooltip="Prompts the gain is measured on and that the search never sees. Without them "
            f"a quarter of the prompts, at most {MOST_HELD_OUT}, is held out.",
        ),
        sockets.Reward.Input("reward", tooltip="What the search raises."),
        io.String.Input(
            "negative", default="", multiline=True, tooltip="Negative prompt; unused at cfg 1."
        ),
        io.Combo.Input(
            "sampler",
            options=comfy.samplers.KSampler.SAMPLERS,
            default="euler",
            tooltip="As in KSampler. Use the sampler you will use the preset with.",
        ),
        io.Combo.Input(
            "scheduler",
            options=comfy.samplers.KSampler.SCHEDULERS,
            default="simple",
            tooltip="As in KSampler.",
        ),
        io.Int.Input(
            "steps", default=15, min=1, max=200, tooltip="Fewer steps leave more to calibrate."
        ),
        io.Float.Input(
            "cfg",
            default=1.0,
            min=0.0,
            max=30.0,
            step=0.1,
            tooltip="Classifier-free guidance; 1 for FLUX.1.",
        ),
        io.Float.Input(
            "guidance",
            default=3.5,
            min=0.0,
            max=100.0,
            step=0.1,
            tooltip="FLUX.1-dev's distilled guidance; other models ignore it.",
        ),
        io.Int.Input(
            "width", default=512, min=16, max=4096, step=16, tooltip="Of each image, in pixels."
        ),
        io.Int.Input(
            "height", default=512, min=16, max=4096, step=16, tooltip="Of each image, in pixels."
        ),
        io.Combo.Input(
            "granularity",
            options=list(GRANULARITIES),
            default="gate",
            tooltip="block: one coefficient for each block. layer: one for each attention and MLP. "
            "gate: as layer, but image and text apart.",
        ),
        io.Combo.Input(
            "profile",
            options=list(PROFILES),
            tooltip="default: evolution strategy with Adam, better with noisy rewards. "
            "paper: CMA-ES as published.",
        ),
        io.Int.Input(
            "generations",
            default=30,
            min=1,
            max=100_000,
            tooltip="Each tries 16 or more candidates on every prompt of its bucket. Raise it and "
            "queue again to go on with a finished run.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**63 - 1,
            tooltip="Of the search and of all its noise.",
        ),
        io.String.Input(
            "run_name",
            default="run",
            tooltip="Names the run's folder in output/calibri. The same settings under the same "
            "name go on where they stopped; other settings get a new folder.",
        ),
        sockets.advanced(
            io.Int.Input(
                "bucket_size",
                default=16,
                min=1,
                max=1024,
                tooltip="Prompts for each generation; the paper has 16.",
            )
        ),
        sockets.advanced(
            io.Int.Input(
                "validate_every",
                default=10,
                min=1,
                max=1000,
                tooltip="Generations between two measurements on the held-out prompts.",
            )
        ),
    ]
