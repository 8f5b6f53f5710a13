"""One evaluation, from its inputs to its report.

Finished batches are kept in `user/calibri/evaluations/<name>`, so that a cancelled evaluation goes
on and one with another step count or preset draws only what is new; the report is in
`output/calibri/<name>`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths
import numpy as np
import torch

from ..calibri.comparison import Comparison, variant_names
from ..calibri.comparison_course import compare
from ..calibri.comparison_files import NUMBERS, ComparisonFiles, save_comparison
from ..calibri.comparison_report import about_presets, build_comparison, shown_cells, steps_found_at
from ..calibri.comparison_store import PartFolder
from ..calibri.comparison_words import short
from ..calibri.setting_lists import parse_names, parse_settings
from . import folders, identity, runs
from .evaluation_painter import ComfyPainter
from .evaluation_progress import EvaluationProgress

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

    from ..calibri.presets import Preset
    from ..rewards.protocol import Reward

SENTENCES = 6  # that fit under a node


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation shows: `report` and `grid` are IMAGEs, `numbers` JSON, `pictures` name
    its files to the page."""

    files: ComparisonFiles
    numbers: str
    pictures: list[dict[str, str]]
    text: str

    @property
    def report(self) -> torch.Tensor:
        return _image(self.files.figure_picture)

    @property
    def grid(self) -> torch.Tensor:
        return _image(self.files.grid_picture)


@dataclass(frozen=True)
class PreparedEvaluation:
    """An evaluation that can begin, or go on. Nothing is sampled yet."""

    comparison: Comparison
    painter: ComfyPainter
    progress: EvaluationProgress
    about: Mapping[str, Any]


def run_evaluation(name: str, say: Callable[[str], None], **inputs: Any) -> EvaluationResult:
    """Evaluate, or go on with, what these inputs say (`prepare_evaluation`); `say` hears how it
    goes.

    Raises ValueError with one sentence for what does not fit together, before anything is sampled.
    """
    stem = "-".join(folders.safe_name(name).parts)
    prepared = prepare_evaluation(say=say, **inputs)
    comparison, progress = prepared.comparison, prepared.progress
    kept = Path(folder_paths.get_user_directory()) / "calibri" / "evaluations" / stem
    say(_announced(comparison))
    cells = compare(comparison, prepared.painter, PartFolder(kept), progress.on_batch)
    report = build_comparison(comparison, cells, prepared.about)
    folder = _output_folder(stem, prepared.about["id"])
    folders.make_folder(folder)
    files = save_comparison(folder, report, cells)
    words = short(report, SENTENCES)
    return EvaluationResult(
        files=files,
        numbers=json.dumps(report, ensure_ascii=False),
        pictures=[runs.as_output(path) for path in (files.figure, files.grid)],
        text=f"{words}\nThe report is {files.page}.",
    )


def prepare_evaluation(
    *,
    model: ModelPatcher,
    clip: CLIP,
    vae: VAE,
    prompts: tuple[str, ...],
    reward: Reward,
    preset_1: Preset,
    preset_2: Preset | None = None,
    preset_3: Preset | None = None,
    other_reward_1: Reward | None = None,
    other_reward_2: Reward | None = None,
    other_reward_3: Reward | None = None,
    negative: str,
    sampler: str,
    scheduler: str,
    steps: str,
    cfg: str,
    sizes: str,
    guidance: float,
    max_prompts: int,
    images_per_prompt: int,
    seed: int,
    other_samplers: str = "",
    say: Callable[[str], None],
) -> PreparedEvaluation:
    """The evaluation of the inputs of `evaluate.CalibriEvaluate`.

    Raises ValueError with one sentence for what does not fit together.
    """
    settings = parse_settings(steps, cfg, (sampler, *parse_names(other_samplers)), scheduler, sizes)
    presets = [preset for preset in (preset_1, preset_2, preset_3) if preset is not None]
    others = (other_reward_1, other_reward_2, other_reward_3)
    rewards = [reward, *(other for other in others if other is not None)]
    variants = variant_names([preset.title for preset in presets])
    comparison = Comparison(
        variants=variants,
        settings=settings,
        prompts=tuple(dict.fromkeys(prompts))[:max_prompts],
        rewards=tuple(one.name for one in rewards),
        images_per_prompt=images_per_prompt,
        seed=seed,
        shown=shown_cells(settings, len(variants), steps_found_at(presets[0])),
    )
    progress = EvaluationProgress(comparison, say)
    painter = ComfyPainter(
        model,
        clip,
        vae,
        presets,
        rewards,
        comparison.prompts,
        negative,
        guidance,
        progress.on_step,
    )
    painter.check(settings)
    marks = [painter.mark(variant) for variant in range(len(variants))]
    about = {
        "id": _digest([asdict(comparison), marks]),
        "model": identity.file_name(model),
        "negative": negative,
        "guidance": guidance,
        "presets": about_presets(variants[1:], presets),
        "host": runs.host_versions(),
    }
    return PreparedEvaluation(comparison, painter, progress, about)


def _announced(comparison: Comparison) -> str:
    return (
        f"Draws {comparison.images} images: {len(comparison.variants)} models x "
        f"{len(comparison.settings)} settings x {len(comparison.prompts)} prompts x "
        f"{comparison.images_per_prompt}."
    )


def _output_folder(stem: str, key: str) -> Path:
    """The folder of the evaluation of this id, or the next free one of its name."""
    root = Path(folder_paths.get_output_directory()) / "calibri"
    names = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
    return next(
        folder
        for folder in (root / name for name in names)
        if not folder.exists() or not any(folder.iterdir()) or _id_of(folder) == key
    )


def _id_of(folder: Path) -> str | None:
    try:
        held = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))
        return str(held["about"]["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _digest(told: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


def _image(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture.astype(np.float32) / 255.0)[None]
