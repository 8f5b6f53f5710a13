"""The training of a whole model from its first step to its files.

A folder holds `training.pt` (the state) and in the end `model.safetensors` (the averaged weights),
`router.safetensors` where a router was trained, `losses.png` and `router.png`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ..calibri.atomic_file import save_atomically
from ..calibri.report import save_picture
from ..training.checkpointing import checkpointed
from ..training.loop import DivergedError
from ..training.processes import ALONE, Processes
from ..training.state import STATE, TrainingError
from .figure_inspection import draw_router
from .figure_training import draw_losses
from .full_subject import ModelSubject
from .hidden import read_blocks
from .levels import Level
from .recipe import Recipe
from .router_file import TrainedRouter, can_be_kept, save_router
from .training import Features, Trained, Trainer

MODEL, ROUTER = "model.safetensors", "router.safetensors"
LOSSES, ROUTER_PICTURE = "losses.png", "router.png"
_RESULTS = (MODEL, ROUTER, LOSSES, ROUTER_PICTURE)
METADATA_KEY = "calibri_training"


@dataclass(frozen=True)
class Saving:
    """How averaged weights become a file: its names, and what else its metadata says (JSON)."""

    names: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    about: Mapping[str, Any]


class FullRun:
    """One run in a folder, begun or gone on with."""

    def __init__(
        self,
        subject: ModelSubject,
        recipe: Recipe,
        levels: tuple[Level, ...],
        features: Features | None,
        router: nn.Module | None,
        folder: Path,
        about: Mapping[str, Any],
        saving: Saving,
        processes: Processes = ALONE,
    ) -> None:
        """Raises as `Trainer` does, and FileExistsError for a folder of other results."""
        check_folder(folder)
        self.folder, self._levels, self._saving = folder, levels, saving
        self._subject, self._recipe, self._processes = subject, recipe, processes
        self.trainer = Trainer(subject, recipe, levels, features, router, folder, about, processes)

    def train(
        self, watch: Callable[[FullRun], None] = lambda run: None, checkpointing: bool = False
    ) -> Trained:
        """To the end, or go on; then the files are there.

        Raises DivergedError for a loss that is no number: what was good before it is kept as a
        checkpoint. Raises TrainingError and OSError where something cannot be written.
        """
        model = self._subject.model
        blocks = [model.get_submodule(block.module) for block in read_blocks(model)]
        try:
            with checkpointed(blocks) if checkpointing else nullcontext():
                found = self.trainer.train(lambda trainer: watch(self))
        except DivergedError as error:
            if self.trainer.loop.step == 0:
                raise
            kept = self.checkpoint()
            raise DivergedError(f"{error} The averaged weights before it are in {kept}.") from error
        except torch.cuda.OutOfMemoryError as error:
            raise TrainingError(
                "The device's memory does not hold a step: give a smaller batch with more "
                "accumulate, or checkpointing; the steps so far are kept."
            ) from error
        if self._processes.main:
            self._finish(found)
        return found

    def checkpoint(self) -> Path:
        """Write the averaged weights so far beside the result; the file's path."""
        step = self.trainer.loop.step
        path = self.folder / f"model-step-{step:06}.safetensors"
        if self._processes.main:
            self._write(path)
        return path

    def files(self) -> dict[str, str | None]:
        """Of the results, null for those that are not there."""
        names = {
            "model": MODEL,
            "router": ROUTER,
            "losses": LOSSES,
            "router_picture": ROUTER_PICTURE,
            "state": STATE,
        }
        return {
            name: str(self.folder / file) if (self.folder / file).is_file() else None
            for name, file in names.items()
        }

    def _finish(self, found: Trained) -> None:
        kept = self._router(found)
        save_picture(self.folder / LOSSES, draw_losses(found.history.values, self._recipe.method))
        save_picture(self.folder / ROUTER_PICTURE, draw_router(kept))
        if kept is not None:
            # Only of this very run, which was killed while it wrote.
            (self.folder / ROUTER).unlink(missing_ok=True)
            save_router(self.folder / ROUTER, kept)
        self._write(self.folder / MODEL)  # last: what says that the run is done

    def _write(self, path: Path) -> None:
        weights = {
            name: value.detach().to("cpu").contiguous()
            for name, value in self._saving.names(self.trainer.averaged).items()
        }
        told = {**self._saving.about, "recipe": self._recipe.record()}
        told["steps"] = self.trainer.loop.step
        data = save(weights, {"format": "pt", METADATA_KEY: json.dumps(told, sort_keys=True)})
        save_atomically(path, data, "model")

    def _router(self, found: Trained) -> TrainedRouter | None:
        if found.alignment is None or not can_be_kept(self._recipe.method):
            return None
        first = next(found.alignment.projector.parameters())
        router = found.alignment.router.cpu().eval().requires_grad_(False)
        about = {"recipe": self._recipe.record()}
        return TrainedRouter(self._recipe.method, self._levels, first.shape[1], router, about)


def check_folder(folder: Path) -> None:
    """Raise FileExistsError for a folder that holds a result, or files of no run that goes on."""
    there = [name for name in _RESULTS if (folder / name).exists()]
    if MODEL in there or (there and not (folder / STATE).exists()):
        raise FileExistsError(f"{folder / there[0]} is there already: name another --output.")
