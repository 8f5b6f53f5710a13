"""One training of a QRM within one prompt: its inputs, its course, what it leaves.

The run's state is in user/calibri/qrm-runs, its results in output/calibri/qrm, both in a folder
named after the run and its settings: the same settings go on where they stopped.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import torch
from PIL import Image

from ..calibri.evaluation import samples
from ..calibri.prompts import split_prompts
from ..calibri.report import save_picture, save_report
from ..qrm.code_search import search_train
from ..qrm.config import QRMConfig
from ..qrm.figure_training import draw_training
from ..qrm.files import QRMFile, save_qrm
from ..qrm.losses import Latents
from ..qrm.measuring import draw
from ..qrm.memory import Job, sentence
from ..qrm.module import QRM
from ..qrm.recipe import Recipe
from ..qrm.training import Trained, split_of, train
from ..rewards.batch import accepts_latents
from ..rewards.weights_mark import weights_of
from ..training.state import TrainingError
from . import folders, identity
from .folders import safe_name
from .patching import diffusion_model
from .qrm_layer import Prompt
from .qrm_trainee import ComfyTrainee, Drawing
from .runs import as_output
from .trainable import training_mode

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

    from ..rewards.protocol import Reward

REPORT, PICTURE, MODULE = "report.json", "report.png", "qrm.safetensors"
MOST_STOPPING = 32  # prompts, where one list is split
_PREVIEWED = 4


@dataclass(frozen=True)
class QRMResult:
    """What a training shows: `report` is an IMAGE, `pictures` name its files to the page."""

    file: QRMFile
    report: torch.Tensor
    pictures: list[dict[str, str]]
    text: str


def train_qrm(
    *,
    model: ModelPatcher,
    clip: CLIP,
    vae: VAE,
    prompts: tuple[str, ...],
    reward: Reward,
    drawing: Drawing,
    recipe: Recipe,
    mode: str,
    run_name: str,
    say: Callable[[str], None],
    held_out: tuple[str, ...] | None = None,
    images: torch.Tensor | None = None,
) -> QRMResult:
    """Train, or go on with, the run of these inputs; `say` hears how it goes.

    Raises ValueError with one sentence for what does not fit together; whatever is raised later,
    Cancel for instance, leaves a state to go on from.
    """
    if accepts_latents(reward):
        raise TrainingError(
            f"The reward {reward.name} scores latents, and QRM's training shows it pictures: "
            "connect another reward."
        )
    taught = prompts
    if held_out is None:
        parts = split_prompts(prompts, max(2, min(len(prompts) // 4, MOST_STOPPING)), recipe.seed)
        taught, held_out = parts.training, parts.held_out
    texts, split = split_of(taught, held_out)
    if images is not None and len(images) != len(prompts):
        raise TrainingError(
            f"There are {len(images)} images and {len(prompts)} prompts: connect one image for "
            "each prompt, in their order."
        )
    if images is not None and tuple(images.shape[1:3]) != (drawing.height, drawing.width):
        raise TrainingError(
            f"The images have {images.shape[2]} x {images.shape[1]} pixels and training is at "
            f"{drawing.width} x {drawing.height}: scale and crop them to that, or change it."
        )
    about = {
        "model": identity.identity(model),
        "clip": identity.of_clip(clip),
        "vae": identity.identity(vae.patcher),
        "prompts": list(texts),
        "reward": [reward.name, weights_of(reward)],
        "drawing": asdict(drawing),
        "mode": mode,
        "images": None if images is None else identity.of_tensor(images),
    }
    folder = _run_folder(run_name, {**about, "recipe": recipe.record()})
    bar = comfy.utils.ProgressBar(recipe.steps)
    with (
        training_mode(),
        closing(ComfyTrainee(model, clip, vae, texts, drawing, recipe.checkpointing)) as trainee,
    ):
        module = _module(trainee, model, mode, recipe.seed)
        say(sentence(_job(trainee, model, vae, reward, module, recipe, drawing)))
        if reward.differentiable:

            def watch(step: int, losses: Mapping[str, float], stopping: float) -> None:
                shown = step % recipe.validate_every == 0
                preview = None
                if shown:
                    preview = _preview(trainee, module, reward, split.stopping, recipe)
                bar.update_absolute(step, recipe.steps, preview)
                if shown:
                    say(_words(step, recipe.steps, stopping, losses))

            latents = None
            if images is not None and recipe.losses.flow > 0:
                where = {text: row for row, text in enumerate(texts)}
                # Those that decide when to stop are not learnt from.
                kept = [i for i, text in enumerate(prompts) if where.get(text) in split.train]
                rows = tuple(where[prompts[i]] for i in kept)
                latents = Latents(trainee.encode(images[kept]), rows)
            found = train(
                trainee,
                module,
                reward.score,
                recipe,
                split,
                latents=latents,
                folder=folder,
                about=about,
                watch=watch,
            )
        else:
            say(f"{reward.name} has no gradient: {recipe.steps} generations of a search instead.")
            found = search_train(
                trainee,
                module,
                reward.score,
                recipe,
                split,
                folder=folder,
                about=about,
                watch=lambda generation, mean: bar.update_absolute(generation, recipe.steps),
            )
    return _conclude(model, module, found, reward, recipe, drawing, folder.name)


def _module(trainee: ComfyTrainee, model: ModelPatcher, mode: str, seed: int) -> QRM:
    """An untrained module for the model and its prompts, from a seed."""
    prompt = trainee.prompt(0)
    tokens, pooled = (0 if p is None else p.shape[-1] for p in (prompt.tokens, prompt.pooled))
    config = QRMConfig.for_backbone(diffusion_model(model), tokens, pooled, mode)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return QRM(config).to(trainee.device)


def _run_folder(name: str, settings: Mapping[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    stem = "-".join(safe_name(name).parts)
    return Path(folder_paths.get_user_directory()) / "calibri" / "qrm-runs" / f"{stem}-{digest}"


def _job(
    trainee: ComfyTrainee,
    model: ModelPatcher,
    vae: VAE,
    reward: Reward,
    module: QRM,
    recipe: Recipe,
    drawing: Drawing,
) -> Job:
    prompt: Prompt = trainee.prompt(0)
    text = 0 if prompt.tokens is None else prompt.tokens.shape[1]
    blocks = module.config.layout.blocks
    cells = int(np.prod(trainee.shape[1:]))
    weights = sum(p.numel() * p.element_size() for p in vae.first_stage_model.parameters())
    return Job(
        model_bytes=model.model_size(),
        vae_bytes=weights,
        reward_bytes=reward.card.memory,
        module_parameters=sum(p.numel() for p in module.parameters()),
        blocks=sum(blocks.values()),
        hidden=max(slot.width for slot in module.config.layout.slots),
        tokens=cells // 4 + text,  # families take 2 x 2 cells for a token
        pixels=drawing.width * drawing.height,
        rows=recipe.batch,
        backward_steps=recipe.backward_steps,
        checkpointing=recipe.checkpointing,
        decoded=recipe.losses.rewards,
        guided=drawing.cfg != 1.0,
        bytes_per_number=model.model_dtype().itemsize,
    )


def _preview(
    trainee: ComfyTrainee, module: QRM, reward: Reward, rows: tuple[int, ...], recipe: Recipe
) -> tuple[str, Image.Image, int]:
    """The first stopping prompts as the module now has them drawn."""
    bucket = samples(recipe.seed, "stopping", 0, rows[:_PREVIEWED])
    pictures, _ = draw(trainee, module, reward.score, bucket, recipe.batch)
    row = (torch.cat(list(pictures), dim=1) * 255).round().byte().numpy()
    return ("JPEG", Image.fromarray(row), 1024)


def _words(step: int, steps: int, stopping: float, losses: Mapping[str, float]) -> str:
    said = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
    return f"Step {step} of {steps}: {stopping:.4g} on the stopping prompts; losses {said}"


def _conclude(
    model: ModelPatcher,
    module: QRM,
    found: Trained,
    reward: Reward,
    recipe: Recipe,
    drawing: Drawing,
    run_id: str,
) -> QRMResult:
    folder = Path(folder_paths.get_output_directory()) / "calibri" / "qrm" / run_id
    folders.make_folder(folder)
    record = {
        "reward": reward.name,
        "recipe": recipe.record(),
        "drawing": asdict(drawing),
        "best_step": found.best_step,
        "plain_reward": found.plain_reward,
        "stopping_reward": found.best_reward,
        "difficulty": {"mean": found.difficulty.mean, "deviation": found.difficulty.deviation},
    }
    base = identity.file_name(model)
    file = QRMFile(
        module=module.cpu().eval().requires_grad_(False),
        title=f"{base}: {reward.name}",
        base_model=base,
        fingerprint=identity.fingerprint_of(model),
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        training=record,
    )
    path = folder / MODULE
    path.unlink(missing_ok=True)  # this run's own, of a shorter training
    save_qrm(path, file)
    history = {"losses": found.history.values, "stopping": found.history.stopping}
    save_report(folder / REPORT, {**record, "history": history})
    picture = draw_training(found, reward.name)
    save_picture(folder / PICTURE, picture)
    text = _result(found, reward.name) + f" Saved as {path}."
    report = torch.from_numpy(picture.astype(np.float32) / 255.0)[None]
    return QRMResult(file, report, [as_output(folder / PICTURE)], text)


def _result(found: Trained, reward: str) -> str:
    if found.best_step == 0:
        return (
            f"No step was better than the plain model ({found.plain_reward:.4g} by {reward} on the "
            "stopping prompts), so this QRM changes nothing."
        )
    return (
        f"{reward} on the stopping prompts: {found.plain_reward:.4g} plain, "
        f"{found.best_reward:.4g} after {found.best_step} steps, which were chosen by it. Judge it "
        "on other prompts and by another reward before you trust it."
    )
