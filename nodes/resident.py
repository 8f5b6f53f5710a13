"""Private models that stay whole on their device while something is trained through them.

What ComfyUI's model management has in its list it may move to main memory, in part or as a whole,
whenever another model is loaded: a VAE, a reward, between a forward pass and the backward pass that
needs the same weights. So a training's own copy is loaded as ComfyUI would, and kept off the list.
Other models have the memory that is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import comfy.model_management
from torch import nn

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


def load_to_stay(patcher: ModelPatcher) -> None:
    """Load a private model as a whole, its LoRAs in its weights, in place of all that is loaded.

    Activations and decoding need what other models would hold.
    """
    device = patcher.load_device
    if not comfy.model_management.is_device_cpu(device):
        comfy.model_management.free_memory(1e30, device)
    patcher.model_patches_to(device)
    patcher.model_patches_to(patcher.model_dtype())
    patcher.patch_model(device_to=device)


def let_go(module: nn.Module) -> None:
    """Give the memory of a private model back, whoever still knows it."""
    module.to("meta")
