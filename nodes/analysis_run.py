"""One analysis within one prompt, from its inputs to its pictures; `calibri/analysis.py` is the
measuring."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import comfy.model_management
import comfy.utils
import numpy as np
import torch
from PIL import Image

from ..calibri.analysis import Analysis, AnalysisConfig, analyse, parse_scales
from ..calibri.analysis_report import build_analysis_report, describe_analysis
from ..calibri.coefficients import coefficient_space
from ..calibri.compact_text import fitting, parse_patterns
from ..calibri.ensemble_space import EnsembleSpace, ensemble_space
from ..calibri.figure_analysis import draw_heat_map
from ..calibri.figure_block_curves import draw_curves
from ..calibri.journal import Journal
from ..calibri.report import save_picture, save_report
from ..calibri.skip_layers import Suggestion, suggest_layers
from . import folders, runs
from .calibration_inputs import sampling_record
from .patching import backbone_of
from .sampling import ComfyEvaluator, SamplerSettings

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

    from ..rewards.protocol import Reward

NUMBERS = "analysis.json"
HEAT_MAP = "heat_map.png"
CURVES = "curves.png"
PREVIEW_SIDE = 1024  # pixels of the preview's longer side


@dataclass(frozen=True)
class AnalysisResult:
    """What an analysis shows: two IMAGEs, JSON, and the pictures' files for the page."""

    heat_map: torch.Tensor
    curves: torch.Tensor
    numbers: str
    suggestion: Suggestion
    pictures: list[dict[str, str]]
    text: str


def run_analysis(
    *,
    say: Callable[[str], None],
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
    scales: str,
    only: str,
    images_per_prompt: int,
    seed: int,
    run_name: str,
) -> AnalysisResult:
    """Run, or go on with, the analysis of these inputs; `say` hears what it will cost.

    Raises ValueError with one sentence for what does not fit together, before anything is sampled;
    whatever is raised later leaves the journal resumable.
    """
    prompts = tuple(dict.fromkeys(prompts))  # doubles would make the bands too narrow
    space = ensemble_space(coefficient_space(backbone_of(model), granularity))
    settings = SamplerSettings(sampler, scheduler, steps, cfg, guidance, width, height, negative)
    config = AnalysisConfig(
        prompts=prompts,
        reward=reward.name,
        names=_names(space, only),
        scales=parse_scales(scales),
        images_per_prompt=images_per_prompt,
        seed=seed,
        sampling=sampling_record(model, clip, vae, reward, settings),
    )
    evaluator = ComfyEvaluator(model, clip, vae, reward, space, settings, prompts)
    folder = runs.run_folder(run_name, config.record(space))
    variants = len(config.names) * len(config.scales) + 1
    say(
        f"{len(config.names)} coefficients × {len(config.scales)} scales and the plain model, "
        f"{len(prompts)} prompts × {images_per_prompt} images: "
        f"{variants * len(prompts) * images_per_prompt:,} images."
    )
    progress = _Progress(reward.name)
    with Journal.open(folder / runs.JOURNAL) as journal:
        found = analyse(
            config,
            space,
            evaluator,
            journal,
            progress.on_batch,
            progress.on_round,
            runs.host_versions(),
        )
    return _conclude(found, config, space, runs.output_folder(folder.name))


class _Progress:
    """Counts images on ComfyUI's progress bar, and shows the heat map as it grows."""

    def __init__(self, reward: str) -> None:
        self._reward = reward
        self._bar = comfy.utils.ProgressBar(1)
        self._done, self._total = 0, 1

    def on_batch(self, done: int, total: int) -> None:
        """Count; also a point where Cancel takes effect."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._done, self._total = done, total
        self._bar.update_absolute(done, total)

    def on_round(self, analysis: Analysis) -> None:
        picture = Image.fromarray(draw_heat_map(analysis, self._reward))
        self._bar.update_absolute(self._done, self._total, ("JPEG", picture, PREVIEW_SIDE))


def _names(space: EnsembleSpace, only: str) -> tuple[str, ...]:
    """The coefficients that the patterns of `only` name, in the model's order; all without any."""
    patterns = parse_patterns(only)
    if not patterns:
        return space.names
    meant = {name for parts in patterns for name in fitting(parts, space.names, ".".join(parts))}
    return tuple(name for name in space.names if name in meant)


def _conclude(
    found: Analysis, config: AnalysisConfig, space: EnsembleSpace, folder: Path
) -> AnalysisResult:
    """Draw and save what was found."""
    suggestion = suggest_layers(found, space.backbone.family, space.granularity, space.names)
    numbers = build_analysis_report(found, config.record(space), suggestion)
    pictures = {
        HEAT_MAP: draw_heat_map(found, config.reward),
        CURVES: draw_curves(found, config.reward, suggestion),
    }
    folders.make_folder(folder)
    save_report(folder / NUMBERS, numbers)
    for name, picture in pictures.items():
        save_picture(folder / name, picture)
    words = describe_analysis(found, config.reward, suggestion)
    return AnalysisResult(
        heat_map=_image(pictures[HEAT_MAP]),
        curves=_image(pictures[CURVES]),
        numbers=json.dumps(numbers, ensure_ascii=False, allow_nan=False),
        suggestion=suggestion,
        pictures=[runs.as_output(folder / name) for name in pictures],
        text=f"{words} Everything is in {folder}.",
    )


def _image(picture: np.ndarray) -> torch.Tensor:
    """A picture [H, W, 3] as an IMAGE."""
    return torch.from_numpy(picture.astype(np.float32) / 255.0)[None]
