"""A small evaluation: what the tests of Evaluate Calibration give it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfyui_calibri.calibri.backbones import Backbone
from comfyui_calibri.calibri.coefficients import coefficient_space
from comfyui_calibri.calibri.presets import Guidance, Member, Preset
from comfyui_calibri.nodes.evaluation_painter import ComfyPainter
from comfyui_calibri.nodes.patching import backbone_of

from .tiny_patchers import Brightness, make_clip, make_model, make_vae

PROMPTS = ("a red circle", "two green stars", "a pink ring")
SIDE = 16


def evaluation_inputs(folder: Path) -> dict[str, Any]:
    """24 images: plain and a preset at 1 and 2 steps. `folder` gets the text encoder's file."""
    model = make_model()
    return {
        "model": model,
        "clip": make_clip(folder),
        "vae": make_vae(),
        "prompts": (*PROMPTS, "a prompt too many"),
        "reward": Brightness(),
        "preset_1": preset(backbone_of(model), 0.5),
        "negative": "",
        "sampler": "euler",
        "scheduler": "simple",
        "steps": "2, 1",
        "cfg": "1",
        "sizes": f"{SIDE}x{SIDE}",
        "guidance": 3.5,
        "max_prompts": 3,
        "images_per_prompt": 2,
        "seed": 1,
        "name": "trial",
    }


def preset(backbone: Backbone, *values: float, scale: float | None = None) -> Preset:
    """Members whose coefficients are all `values`; weighted where there are several."""
    names = coefficient_space(backbone, "block").names
    weights = [1.0] if len(values) == 1 else [1.5, -0.5]
    return Preset(
        family=backbone.family,
        blocks=dict(backbone.blocks),
        granularity="block",
        members=tuple(
            Member(dict.fromkeys(names, value), weight)
            for value, weight in zip(values, weights, strict=True)
        ),
        guidance=None if scale is None else Guidance(scale, rescale=False),
        title="half",
        sampling={"steps": 2},
    )


def painter(inputs: dict[str, Any], *presets: Preset, **changes: Any) -> ComfyPainter:
    given = {**inputs, **changes}
    return ComfyPainter(
        given["model"],
        given["clip"],
        given["vae"],
        presets,
        [given["reward"]],
        PROMPTS,
        given["negative"],
        given["guidance"],
    )
