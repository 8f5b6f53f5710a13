"""FLUX.1, SD3 and SD3.5."""

from __future__ import annotations

from ..tiny_models import call, make_flux, make_sd3
from .case import DitCase

CASES = (
    DitCase(
        name="FLUX.1",
        family="flux",
        make=make_flux,
        call=call,
        sizes={
            "FLUX.1": lambda: make_flux(
                device="meta",
                hidden_size=3072,
                num_heads=24,
                axes_dim=[16, 56, 56],
                depth=19,
                depth_single_blocks=38,
            )
        },
        also=("FLUX.1-schnell", "Kontext", "Fill"),
    ),
    DitCase(
        name="SD3",
        family="sd3",
        make=make_sd3,
        call=call,
        sizes={
            "SD3-medium": lambda: make_sd3(device="meta", depth=24),
            "SD3.5-large": lambda: make_sd3(device="meta", depth=38),
        },
    ),
    DitCase(
        name="SD3.5",
        family="sd3",
        make=lambda: make_sd3(dual=(0, 1)),
        call=call,
        sizes={
            "SD3.5-medium": lambda: make_sd3(device="meta", depth=24, dual=tuple(range(13))),
        },
    ),
)
