"""Krea 2, with references placed beside the image, and with references at timestep zero."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..tiny_models import OPERATIONS, randomised
from .case import SAMPLES, DitCase

TEXT_LAYERS, CAPTION = 3, 16  # layers of the text encoder, and channels of each


def make() -> nn.Module:
    """Two blocks of width 64."""
    from comfy.ldm.krea2.model import SingleStreamDiT  # not in v0.3.64

    config: dict[str, Any] = {
        "features": 64,
        "tdim": 16,
        "heads": 2,
        "kvheads": 1,
        "layers": 2,
        "channels": 4,
        "txtdim": CAPTION,
        "txtlayers": TEXT_LAYERS,
        "txtheads": 2,
        "txtkvheads": 2,
    }
    return randomised(SingleStreamDiT(operations=OPERATIONS, **config))


def at_full_size() -> nn.Module:
    from comfy.ldm.krea2.model import SingleStreamDiT

    return randomised(SingleStreamDiT(operations=OPERATIONS, device="meta"))


def call(model: nn.Module, rows: slice, references: str | None = None) -> Tensor:
    """Latents [rows, 4, 1, 8, 8] as its video autoencoder gives them, with two references of other
    sizes if a method to place them is given.
    """
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype

    def draw(*shape: int) -> Tensor:
        return torch.randn(SAMPLES, *shape, generator=generator)[rows].to(dtype)

    latents, context = draw(4, 1, 8, 8), draw(5, TEXT_LAYERS * CAPTION)
    timestep = torch.tensor([0.9, 0.5, 0.1])[rows]
    given: dict[str, Any] = {}
    if references is not None:
        given["ref_latents"] = [draw(4, 1, 4, 6), draw(4, 1, 6, 4)]
        given["ref_latents_method"] = references
    output: Tensor = model(latents, timestep, context, **given)
    return output


CASES = (
    DitCase(
        name="Krea 2",
        family="krea2",
        make=make,
        call=call,
        sizes={"Krea 2": at_full_size},
    ),
    DitCase(
        name="Krea 2 with references",
        family="krea2",
        make=make,
        call=lambda model, rows: call(model, rows, "index"),
    ),
    DitCase(
        name="Krea 2 with references at timestep zero",
        family="krea2",
        make=make,
        call=lambda model, rows: call(model, rows, "index_timestep_zero"),
    ),
)
