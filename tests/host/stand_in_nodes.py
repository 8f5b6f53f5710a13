"""Another pack in a test's server: what it changes in ComfyUI so that tiny files load.

ComfyUI loads this file from custom_nodes; the tests copy it there. ComfyUI's detection knows a tiny
FLUX and a tiny SD3.5 by themselves. A tiny Qwen-Image and tiny text encoders it does not know.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.utils
import nodes
import torch

_load_checkpoint = comfy.sd.load_checkpoint_guess_config
_load_diffusion_model = comfy.sd.load_diffusion_model
DEMO_TEXT_ENCODER = "calibri-demo-text-encoder.safetensors"


def tiny_text_encoder(*_: Any, **__: Any) -> Any:
    """The demo's, whatever the files: its width is the tiny models'."""
    loader = nodes.NODE_CLASS_MAPPINGS["CalibriLoadDemoTextEncoder"]
    return loader.execute(DEMO_TEXT_ENCODER).args[0]


def load_diffusion_model(path: str, *arguments: Any, **options: Any) -> Any:
    """A file beside which its class and sizes stand is loaded by them."""
    described = Path(path).with_suffix(".json")
    if not described.is_file():
        return _load_diffusion_model(path, *arguments, **options)
    words = json.loads(described.read_text(encoding="utf-8"))
    config = getattr(comfy.supported_models, words["class"])(words["options"])
    config.set_inference_dtype(torch.float32, None)
    weights = comfy.utils.load_torch_file(path)
    model = config.get_model(weights, "")
    model.load_model_weights(weights, "")
    device = comfy.model_management.get_torch_device()
    patcher = comfy.model_patcher.ModelPatcher(model, device, torch.device("cpu"))
    patcher.cached_patcher_init = (load_diffusion_model, (path,))
    return patcher


def load_checkpoint(*arguments: Any, **options: Any) -> Any:
    """The text encoder that a tiny checkpoint lacks."""
    model, clip, *others = _load_checkpoint(*arguments, **options)
    return (model, clip or tiny_text_encoder(), *others)


comfy.sd.load_clip = tiny_text_encoder
comfy.sd.load_diffusion_model = load_diffusion_model
comfy.sd.load_checkpoint_guess_config = load_checkpoint

NODE_CLASS_MAPPINGS: dict[str, Any] = {}
