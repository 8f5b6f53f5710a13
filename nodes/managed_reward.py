"""A reward whose weights ComfyUI loads at first use, moves, and unloads like any model's."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import comfy.model_management
import comfy.model_patcher
import torch

from ..rewards.batch import check_batch, check_scores

if TYPE_CHECKING:
    from ..rewards.protocol import Card, NetworkReward

ROWS = 16  # images at once: more run no faster on networks that see 224 x 224 pixels
# Bytes of activations per image, generous for ViT-H in float32; a gradient keeps those of all of
# its 32 + 24 layers.
ROW_MEMORY, ROW_MEMORY_WITH_GRADIENT = 64 * 2**20, 1024 * 2**20


class ManagedReward:
    """A `Reward` around a `NetworkReward` that `load` makes when the first images come.

    `rows`: images at once; None takes all that `score` gets. `weights` (`weights_mark`) tells its
    files from others of their names.
    """

    differentiable = True
    # Those that one training scores by. A backward pass needs the weights of all, so that none may
    # make room for the next.
    with_gradient: ClassVar[weakref.WeakSet[comfy.model_patcher.ModelPatcher]] = weakref.WeakSet()

    def __init__(
        self,
        name: str,
        card: Card,
        load: Callable[[], NetworkReward],
        rows: int | None = ROWS,
        weights: str = "",
    ) -> None:
        self.name, self.card, self.weights = name, card, weights
        self._load, self._rows = load, rows
        self._reward: NetworkReward | None = None
        self._patcher: comfy.model_patcher.ModelPatcher | None = None

    def score(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Scores [B] of images [B, H, W, 3] in 0..1 on any device, on the reward's device."""
        check_batch(self.name, images, prompts)
        gradient = images.requires_grad
        # ComfyUI runs nodes in inference mode, whose tensors no later gradient could use.
        with torch.inference_mode(False), torch.set_grad_enabled(gradient):
            rows = self._rows or max(1, len(images))
            reward = self._in_place(min(rows, len(images)), gradient)
            parts = [
                reward.score(images[i : i + rows], prompts[i : i + rows])
                for i in range(0, len(images), rows)
            ]
            scores = torch.cat(parts) if parts else torch.zeros(0)
        return check_scores(self.name, scores, len(images))

    def _in_place(self, rows: int, gradient: bool) -> NetworkReward:
        """The reward with its weights on ComfyUI's device."""
        if self._reward is None:
            self._reward = self._load()
        if self._patcher is None:
            # Its layers are not ComfyUI's, which alone can stay partly in main memory.
            self._patcher = comfy.model_patcher.ModelPatcher(
                self._reward.network,
                load_device=comfy.model_management.get_torch_device(),
                offload_device=comfy.model_management.unet_offload_device(),
            )
        needed = rows * (ROW_MEMORY_WITH_GRADIENT if gradient else ROW_MEMORY)
        together = {self._patcher}
        if gradient:
            self.with_gradient.add(self._patcher)
            together.update(self.with_gradient)
        comfy.model_management.load_models_gpu(
            list(together), memory_required=needed, force_full_load=True
        )
        return self._reward
