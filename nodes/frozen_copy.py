"""A private copy of a MODEL for training what acts inside its blocks, as a LoRA does.

The copy is that of `trainable.py`: made outside ComfyUI's inference mode and thrown away, while the
MODEL that was given stays as it is, to the bit. There, a checkpointed block has gradients for its
inputs and QRM's vectors alone; here, gradients reach whatever hooks put into a block
(`training/lora.py`), and blocks are checkpointed by `training/checkpointing.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import comfy.model_sampling
import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP
from torch import nn

from .conditioning import Conditioning
from .patching import WRAPPER_KEY, diffusion_model
from .resident import let_go, load_to_stay
from .trainable import own_copy, own_weights, training_mode

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)


class FrozenCopy:
    """The copy, on its device, with ComfyUI's own way from latents and prompts to a prediction."""

    def __init__(self, patcher: ModelPatcher) -> None:
        self._patcher = patcher
        self.model: Any = patcher.model
        self.diffusion_model: nn.Module = diffusion_model(patcher)
        self.device: torch.device = patcher.load_device

    def noised(self, latents: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Latents [B, ...] at the sigmas `t` [B], mixed as ComfyUI's samplers do."""
        sigma = t.view(-1, *[1] * (latents.ndim - 1))
        found: torch.Tensor = self.model.model_sampling.noise_scaling(sigma, noise, latents, False)
        return found

    def x0(self, x: torch.Tensor, sigma: torch.Tensor, prompts: Conditioning) -> torch.Tensor:
        """The clean latents [B, ...] that the model guesses at x, at its sigmas [B], in float32.

        `prompts` is one conditioning whose rows are those of x (`conditioning.stack`).
        """
        return self.model.apply_model(x, sigma, **self._conditions(x, prompts)).float()

    def velocity(self, x: torch.Tensor, sigma: torch.Tensor, prompts: Conditioning) -> torch.Tensor:
        """noise − picture, as a flow model predicts it; `is_flow` says whether it is one."""
        guess = self.x0(x, sigma, prompts)
        return (x.float() - guess) / sigma.view(-1, *[1] * (x.ndim - 1))

    @property
    def is_flow(self) -> bool:
        """Whether x = (1 − sigma) · picture + sigma · noise, and velocities are predicted."""
        return is_flow(self._patcher)

    def _conditions(self, x: torch.Tensor, prompts: Conditioning) -> dict[str, Any]:
        (entry,) = comfy.samplers.encode_model_conds(
            self.model.extra_conds,
            comfy.sampler_helpers.convert_cond(prompts),
            x.detach(),
            self.device,
            "positive",
            latent_image=torch.zeros_like(x),
            denoise_mask=None,
            seed=0,
        )
        rows = {
            name: value.process_cond(batch_size=len(x), area=None)
            for name, value in entry["model_conds"].items()
        }
        found: dict[str, Any] = comfy.samplers.cond_cat([rows])
        options = dict(self._patcher.model_options.get("transformer_options", {}))
        options.update(cond_or_uncond=[0], uuids=[entry["uuid"]], sigmas=x.new_ones(1))
        return {**found, "transformer_options": options}


def is_flow(patcher: ModelPatcher) -> bool:
    """Whether a MODEL is trained by flow matching with sigma from 0 to 1."""
    sampling = patcher.get_model_object("model_sampling")
    return isinstance(sampling, comfy.model_sampling.CONST)


@contextmanager
def trainable(patcher: ModelPatcher) -> Iterator[FrozenCopy]:
    """Inside, inference mode is off and gradients are on; the copy is whole on its device.

    Raises ValueError for a model with a preset or QRM on it, which would act on the original alone.
    """
    if patcher.get_wrappers(WrappersMP.APPLY_MODEL, WRAPPER_KEY):
        raise ValueError(
            "There is an Apply Calibri or Apply QRM on the model, and training works on the plain "
            "one: connect the model from before it."
        )
    with training_mode():
        own = own_copy(patcher)
        load_to_stay(own)
        own_weights(own.model)
        own.model.requires_grad_(False)
        for module in own.model.modules():
            if isinstance(module, _NORMS):
                module.register_forward_pre_hook(_own_input)
        try:
            yield FrozenCopy(own)
        finally:
            let_go(own.model)


def _own_input(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    # A norm keeps its input for the gradient, and FLUX's blocks add to that very tensor in place.
    if inputs and torch.is_tensor(inputs[0]) and inputs[0].requires_grad:
        return (inputs[0].clone(), *inputs[1:])
    return inputs
