"""What Train LoRA with AHPA does: encode, extract, train, save."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.sd
import comfy.utils
import torch
from PIL import Image
from safetensors.torch import save

from ..ahpa.figure_inspection import draw_router
from ..ahpa.figure_training import draw_losses
from ..ahpa.hidden import read_blocks
from ..ahpa.recipe import Recipe
from ..ahpa.router_file import TrainedRouter, can_be_kept
from ..ahpa.training import Trained, Trainer
from ..calibri.atomic_file import save_atomically
from ..training.checkpointing import checkpointed
from ..training.loop import History
from . import folders, identity
from .ahpa_subject import LoraSubject
from .ahpa_targets import ahpa_folder, encode, read_targets
from .conditioning import Conditioning
from .conditioning import encode as encode_text
from .frozen_copy import is_flow, trainable
from .patching import diffusion_model
from .training_pictures import TrainingPictures

if TYPE_CHECKING:
    from comfy.clip_vision import ClipVisionModel
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

PREVIEW_SECONDS = 5.0
PREVIEW_SIDE = 768
Say = Callable[[str], None]


@dataclass(frozen=True)
class AHPAResult:
    """All that the node gives back; the model has the LoRA of the file."""

    model: ModelPatcher
    lora: dict[str, torch.Tensor]
    path: Path
    losses: torch.Tensor  # [1, H, W, 3]
    router_picture: torch.Tensor
    router: TrainedRouter | None
    text: str


def train_lora(
    model: ModelPatcher,
    clip: CLIP,
    vae: VAE,
    data: TrainingPictures,
    recipe: Recipe,
    rank: int,
    checkpointing: bool,
    filename_prefix: str,
    run_name: str,
    say: Say,
    vision: ClipVisionModel | None = None,
    router: TrainedRouter | None = None,
) -> AHPAResult:
    """Train, or go on with the run of these settings; the LoRA gets the next free name.

    Raises ValueError in one sentence for what does not fit together; Cancel keeps the state.
    """
    if not is_flow(model):
        raise ValueError(
            f"The model ({type(model.model).__name__}) is not trained by flow matching, which AHPA "
            "works on: use a model such as SD3.5, FLUX, Qwen-Image, Wan or Z-Image."
        )
    read_blocks(diffusion_model(model))  # refuses a family before anything is computed
    look_up = comfy.model_management.throw_exception_if_processing_interrupted
    bar = comfy.utils.ProgressBar(recipe.steps)
    # All tensors made here are to be trained with: none may be of inference mode.
    with torch.inference_mode(False):
        with torch.no_grad():
            captions = _encoded(clip, data.captions)
            latents = encode(model, vae, data.pictures, look_up)
        with trainable(model) as copy:
            subject = LoraSubject(copy, latents, captions, rank, recipe.seed, look_up)
            with torch.no_grad():
                levels, features = read_targets(
                    vae, vision, data.pictures, latents, subject.grid, recipe, _count(say)
                )
            about = _about(model, clip, vision, data, latents, rank, router)
            folder = run_folder(run_name, about, recipe)
            blocks = [subject.model.get_submodule(b.module) for b in read_blocks(subject.model)]
            again = checkpointed(blocks) if checkpointing else nullcontext()
            with subject.lora.acting(), again:
                trainer = Trainer(
                    subject,
                    recipe,
                    levels,
                    features,
                    None if router is None else router.router,
                    folder,
                    about,
                )
                began = trainer.loop.step
                found = trainer.train(_Watch(bar, say))
            tensors = subject.tensors(trainer.averaged)
        path = folders.new_lora_path(filename_prefix)
        folders.make_folder(path.parent)
        save_atomically(path, save(tensors, _metadata(recipe, rank, data)), "LoRA")
    # Read back: what goes on is what the file says.
    held = comfy.utils.load_torch_file(str(path), safe_load=True)
    patched, _ = comfy.sd.load_lora_for_models(model, None, held, 1.0, 0.0)
    kept = _kept_router(trainer, levels, recipe, found)
    return AHPAResult(
        patched,
        held,
        path,
        _as_image(draw_losses(found.history.values, recipe.method)),
        _as_image(draw_router(kept)),
        kept,
        _words(path, recipe, found, began),
    )


def run_folder(name: str, about: dict[str, Any], recipe: Recipe) -> Path:
    """Where the state of the run with these settings is: other settings have another folder."""
    told = json.dumps({**about, "recipe": recipe.record()}, sort_keys=True)
    mark = hashlib.sha256(told.encode()).hexdigest()[:10]
    stem = "-".join(folders.safe_name(name).parts)
    return ahpa_folder() / "runs" / f"{stem}-{mark}"


class _Watch:
    """Counts steps, shows the losses so far, and tells numbers now and then."""

    def __init__(self, bar: comfy.utils.ProgressBar, say: Say) -> None:
        self._bar, self._say = bar, say
        self._shown = time.monotonic()

    def __call__(self, trainer: Trainer) -> None:
        loop, total = trainer.loop, trainer.recipe.steps
        preview = None
        if time.monotonic() - self._shown > PREVIEW_SECONDS and loop.step > 1:
            picture = Image.fromarray(draw_losses(loop.history.values, trainer.recipe.method))
            preview = ("JPEG", picture, PREVIEW_SIDE)
            self._say(f"Step {loop.step} of {total}: {_numbers(loop.history)}")
            self._shown = time.monotonic()
        self._bar.update_absolute(loop.step, total, preview)


def _encoded(clip: CLIP, captions: Sequence[str]) -> list[Conditioning]:
    """Each caption's conditioning, and the empty one last; equal captions share theirs."""
    once = {text: encode_text(clip, text, None) for text in dict.fromkeys((*captions, ""))}
    return [once[text] for text in (*captions, "")]


def _count(say: Say) -> Callable[[int, int], None]:
    def watch(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if total and done in (0, total):
            say(f"Features of {done} of {total} pictures.")

    return watch


def _about(
    model: ModelPatcher,
    clip: CLIP,
    vision: ClipVisionModel | None,
    data: TrainingPictures,
    latents: torch.Tensor,
    rank: int,
    router: TrainedRouter | None,
) -> dict[str, Any]:
    """All that makes this run this run, beside its recipe."""
    mark = None
    if router is not None:
        weights = [value.flatten().float().cpu() for value in router.router.state_dict().values()]
        mark = identity.of_tensor(torch.cat(weights))
    patcher = getattr(vision, "patcher", None)
    return {
        "model": identity.identity(model),
        "clip": identity.of_clip(clip),
        "clip_vision": None if patcher is None else identity.identity(patcher),
        "latents": identity.of_tensor(latents),
        "captions": hashlib.sha256("\n".join(data.captions).encode()).hexdigest()[:32],
        "rank": rank,
        "router": mark,
    }


def _metadata(recipe: Recipe, rank: int, data: TrainingPictures) -> dict[str, str]:
    told = {"recipe": recipe.record(), "rank": rank, "pictures": len(data.captions)}
    return {"format": "pt", "ahpa_training": json.dumps(told, sort_keys=True)}


def _kept_router(
    trainer: Trainer, levels: tuple[Any, ...], recipe: Recipe, found: Trained
) -> TrainedRouter | None:
    if found.alignment is None or not can_be_kept(recipe.method):
        return None
    first = next(found.alignment.projector.parameters())
    router = found.alignment.router.cpu().eval().requires_grad_(False)
    return TrainedRouter(recipe.method, levels, first.shape[1], router, {"recipe": recipe.record()})


def _words(path: Path, recipe: Recipe, found: Trained, began: int) -> str:
    gone_on = f" Went on from step {began}." if began else ""
    return (
        f"Saved as {path} after {recipe.steps} steps: {_numbers(found.history)}.{gone_on} "
        "Load it with Load LoRA."
    )


def _numbers(history: History) -> str:
    """The mean of each series' last tenth."""
    return ", ".join(f"{name} {mean:.3f}" for name, mean in history.last_means().items())


def _as_image(picture: Any) -> torch.Tensor:
    return torch.from_numpy(picture.copy()).float()[None] / 255
