"""A node's inputs as a calibration: what is searched, how it is configured, what evaluates it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import comfy.samplers

from ..calibri.coefficients import coefficient_space
from ..calibri.configuration import RunConfig, run_record
from ..calibri.ensemble_space import EnsembleSpace, ensemble_space
from ..calibri.judging import DIVERSITY
from ..calibri.likeness import DEVICE
from ..calibri.presets import Guidance, Preset, fingerprint
from ..calibri.prompts import split_prompts
from ..calibri.warm_start import warm_start
from ..rewards.weights_mark import weights_of
from . import identity, model_options, runs
from .calibrate import MOST_HELD_OUT
from .decoding import Preview
from .patching import backbone_of, diffusion_model
from .sampling import ComfyEvaluator, SamplerSettings

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

    from ..rewards.protocol import Reward


@dataclass(frozen=True)
class Prepared:
    """A calibration that can begin, or go on. Nothing is sampled yet."""

    model: ModelPatcher
    config: RunConfig
    space: EnsembleSpace
    evaluator: ComfyEvaluator

    @property
    def base_model(self) -> str:
        """The name of the model's file, for its presets."""
        return identity.file_name(self.model)

    @property
    def fingerprint(self) -> str:
        """What the model's presets are known to fit by."""
        return fingerprint(diffusion_model(self.model))

    @property
    def versions(self) -> dict[str, str]:
        """What draws, for the journal."""
        return {**runs.host_versions(), DEVICE: self.model.load_device.type}

    @property
    def settings(self) -> dict[str, Any]:
        """What tells this run from others (`run_record`)."""
        return run_record(self.config, self.space)


def prepare(
    *,
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
    bucket_size: int,
    validate_every: int,
    held_out: tuple[str, ...] | None = None,
    members: int = 1,
    guided_members: bool = False,
    start_from: Preset | None = None,
    preview_vae: VAE | None = None,
    stop_early: bool = False,
    other_reward_1: Reward | None = None,
    other_reward_2: Reward | None = None,
    other_reward_3: Reward | None = None,
    keep_anyway: bool = False,
    watch: Callable[[int, int], None] | None = None,
) -> Prepared:
    """The calibration of the inputs of `calibrate.calibration_inputs`; `watch` is the evaluator's.

    Raises ValueError with one sentence for what does not fit together.
    """
    others = _others(reward, (other_reward_1, other_reward_2, other_reward_3))
    if held_out is None:
        count = max(2, min(MOST_HELD_OUT, len(prompts) // 4))
        split = split_prompts(prompts, count, seed)
        prompts, held_out = split.training, split.held_out
    space = _space(model, granularity, members, cfg if guided_members else None, start_from)
    settings = SamplerSettings(sampler, scheduler, steps, cfg, guidance, width, height, negative)
    sampling = sampling_record(model, clip, vae, reward, settings)
    if preview_vae is not None:
        sampling["preview_vae"] = identity.identity(preview_vae.patcher)
    config = RunConfig(
        prompts=prompts,
        validation_prompts=held_out,
        reward=reward.name,
        generations=generations,
        seed=seed,
        profile=profile,
        bucket_size=bucket_size,
        validate_every=validate_every,
        stop_early=stop_early,
        sampling=sampling,
        judges={**{name: weights_of(other) for name, other in others.items()}, DIVERSITY: ""},
        keep_anyway=keep_anyway,
    )
    preview = None if preview_vae is None else Preview(preview_vae, vae, len(prompts))
    evaluator = ComfyEvaluator(
        model, clip, vae, reward, space, settings, config.all_prompts, watch, preview, others
    )
    return Prepared(model, config, space, evaluator)


def _others(reward: Reward, connected: Sequence[Reward | None]) -> dict[str, Reward]:
    """The other rewards by their names."""
    others: dict[str, Reward] = {}
    for number, other in enumerate(connected, 1):
        if other is None:
            continue
        if other.name == DIVERSITY:
            raise ValueError(
                f"other_reward_{number} is named {DIVERSITY}, as the judge that every run has; "
                "give the reward another name where it is declared."
            )
        if other.name in {reward.name, *others}:
            raise ValueError(
                f"other_reward_{number} is {other.name}, which is connected already; connect a "
                "reward that the search does not raise, each once."
            )
        others[other.name] = other
    return others


def sampling_record(
    model: ModelPatcher, clip: CLIP, vae: VAE, reward: Reward, settings: SamplerSettings
) -> dict[str, Any]:
    """How a run's images are made and scored, as JSON values that tell it from other runs."""
    record = {
        **asdict(settings),
        # Nodes such as ModelSamplingFlux change the schedule.
        "sigmas": comfy.samplers.calculate_sigmas(
            model.get_model_object("model_sampling"), settings.scheduler, settings.steps
        ).tolist(),
        "model": identity.identity(model),
        "model_options": model_options.mark(model),
        "text_encoder": identity.of_clip(clip),
        "vae": identity.identity(vae.patcher),
    }
    weights = weights_of(reward)  # not every reward has a file of weights
    return {**record, "reward_weights": weights} if weights else record


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
