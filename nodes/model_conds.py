"""What a model's forward gets of a conditioning, outside a sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comfy.sampler_helpers
import comfy.samplers
import torch

if TYPE_CHECKING:
    from comfy.model_base import BaseModel

    from .conditioning import Conditioning


@torch.no_grad()
def model_conds(
    model: BaseModel, conditioning: Conditioning, x: torch.Tensor, latent: torch.Tensor
) -> dict[str, Any]:
    """The arguments of `apply_model` for a conditioning's first entry, a row for each of `x`.

    `latent` [1, ...] is the empty one that sampling begins with.
    """
    conds = {"positive": comfy.sampler_helpers.convert_cond(conditioning[:1])}
    held = comfy.samplers.process_conds(
        model,
        torch.zeros_like(x),
        conds,
        x.device,
        latent_image=latent.to(x.device).expand_as(x),
        seed=0,
    )["positive"][0]["model_conds"]
    return {
        name: _own(cond.process_cond(batch_size=len(x), device=x.device, area=None).cond)
        for name, cond in held.items()
    }


def _own(value: Any) -> Any:
    """An ordinary tensor outside inference mode, whatever the text encoder gave."""
    if isinstance(value, torch.Tensor) and value.is_inference():
        return value.clone()
    return value
