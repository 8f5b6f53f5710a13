"""A private copy of a MODEL that gradients flow through, inside a node.

ComfyUI runs nodes in inference mode, and what its loaders make there can never be part of a
gradient. So training works on a copy of its own, made outside inference mode and thrown away; the
MODEL that was given stays as it is, to the bit. The copy's weights are frozen: gradients are for
what acts on it, such as LoRA by hooks (`training/lora.py`) or vectors by taps.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import comfy.conds
import comfy.model_management
import comfy.model_sampling
import comfy.sampler_helpers
import comfy.samplers
import torch
from torch import nn

from .conditioning import Conditioning
from .patching import diffusion_model, has_gains

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
    """Inside, inference mode is off and gradients are on; the copy is loaded as a whole.

    Raises ValueError for a model with a preset or QRM on it, which would act on the original alone.
    """
    if has_gains(patcher):
        raise ValueError(
            "model has a preset by Apply Calibri, and training works on the plain model: connect "
            "the model from before Apply Calibri."
        )
    with torch.inference_mode(False), torch.enable_grad():
        own = _copy(patcher)
        own.model.requires_grad_(False)
        for module in own.model.modules():
            if isinstance(module, _NORMS):
                module.register_forward_pre_hook(_own_input)
        comfy.model_management.load_models_gpu([own], memory_required=1e20, force_full_load=True)
        with _in_training():
            try:
                yield FrozenCopy(own)
            finally:
                own.detach()


def _own_input(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    # A norm keeps its input for the gradient, and FLUX's blocks add to that very tensor in place.
    if inputs and torch.is_tensor(inputs[0]) and inputs[0].requires_grad:
        return (inputs[0].clone(), *inputs[1:])
    return inputs


def _copy(patcher: ModelPatcher) -> ModelPatcher:
    """A patcher with the same patches around weights of its own, none of them inference tensors."""
    known = inspect.signature(patcher.clone).parameters
    if "force_deepcopy" in known and patcher.cached_patcher_init is not None:
        return patcher.clone(force_deepcopy=True)  # from the file, as ComfyUI's own trainer does
    # Weights that other clones have patched go back to what they were, and off the device.
    comfy.model_management.unload_all_models()
    model = _own_weights(patcher.model)
    if "model_override" in known:
        return patcher.clone(model_override=(model, ({}, {}, {}, set())))
    own = patcher.clone()
    own.model, own.parent = model, None
    own.backup, own.object_patches_backup = {}, {}
    return own


def _own_weights(original: Any) -> Any:
    """The model around weights of its own, ordinary tensors where those were of inference mode."""
    # Not part of the weights, and not made to be copied.
    shared = [getattr(original, name, None) for name in ("model_config", "current_patcher")]
    model = copy.deepcopy(original, {id(held): held for held in shared if held is not None})
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_inference():
                plain = nn.Parameter(parameter.detach().clone(), requires_grad=False)
                setattr(module, name, plain)
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_inference():
                setattr(module, name, buffer.clone())
    return model


@contextmanager
def _in_training() -> Iterator[None]:
    """Have ComfyUI compute in ways that have gradients, where it knows of training (not 0.3.64)."""
    if not hasattr(comfy.model_management, "in_training"):
        yield
        return
    before = comfy.model_management.in_training
    comfy.model_management.in_training = True
    try:
        yield
    finally:
        comfy.model_management.in_training = before
