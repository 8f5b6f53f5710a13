"""Inputs of Calibrate for a tiny model, as its node's `execute` takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .tiny_patchers import Brightness, make_clip, make_model, make_vae

TRAINING = ("a red circle", "two green stars", "a pink ring")
HELD_OUT = ("a black cross", "a large red triangle")


def sampled_inputs(folder: Path, family: str = "flux") -> dict[str, Any]:
    """What is sampled, how, and scored by whom: 16 x 16 pixels; `folder` is the text encoder's."""
    return {
        "model": make_model(family),
        "clip": make_clip(folder),
        "vae": make_vae(),
        "prompts": TRAINING,
        "reward": Brightness(),
        "negative": "",
        "sampler": "euler",
        "scheduler": "simple",
        "steps": 2,
        "cfg": 1.0,
        "guidance": 3.5,
        "width": 16,
        "height": 16,
        "granularity": "layer",
        "seed": 1,
        "run_name": "trial",
    }


def calibration_inputs(folder: Path, family: str = "flux") -> dict[str, Any]:
    """A run of 2 generations of 2 images for each candidate, both validated."""
    return {
        **sampled_inputs(folder, family),
        "held_out": HELD_OUT,
        "profile": "default",
        "generations": 2,
        "bucket_size": 2,
        "validate_every": 1,
    }
