"""What loaders would hand to our nodes, tiny and with random weights: MODEL, CLIP, VAE, reward."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.taesd.taesd
import torch
from comfy.ldm.flux.model import FluxParams
from safetensors.torch import save_file
from torch import Tensor

from comfyui_calibri.demo.text_encoder import TextEncoder
from comfyui_calibri.nodes.demo_clip import load_text_encoder

from .tiny_models import randomised

WIDTH = 64  # of the demo's text encoder: the models' context and pooled width

FLUX = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "vec_in_dim": WIDTH,
    "context_in_dim": WIDTH,
    "hidden_size": 128,
    "mlp_ratio": 4.0,
    "num_heads": 1,
    "depth": 2,
    "depth_single_blocks": 2,
    "axes_dim": [16, 56, 56],
    "theta": 10000,
    "qkv_bias": True,
    "guidance_embed": True,
}
SD3 = {
    "in_channels": 16,
    "patch_size": 2,
    "depth": 2,
    "input_size": None,
    "adm_in_channels": WIDTH,
    "context_embedder_config": {
        "target": "torch.nn.Linear",
        "params": {"in_features": WIDTH, "out_features": 128},
    },
    "num_patches": 16 * 16,
    "pos_embed_max_size": 16,
    "pos_embed_scaling_factor": None,
    "qk_norm": "rms",
    "x_block_self_attn_layers": [],
}


def make_model(family: str = "flux") -> comfy.model_patcher.ModelPatcher:
    """A MODEL of two double and two single FLUX blocks, or of two SD3 blocks."""
    kind, options = {"flux": ("Flux", FLUX), "sd3": ("SD3", SD3)}[family]
    return make_patcher(kind, options)


def make_patcher(kind: str, options: dict[str, Any]) -> comfy.model_patcher.ModelPatcher:
    """A MODEL of the class `kind` of comfy/supported_models.py, with random weights.

    Built from its config: v0.3.64 detects no FLUX narrower than 3072. Raises ImportError where this
    ComfyUI has no such class.
    """
    if not hasattr(comfy.supported_models, kind):
        raise ImportError(f"no {kind}")
    options = dict(options)
    if "txt_ids_dims" in FluxParams.__dataclass_fields__ and options.get("image_model") == "flux":
        options["txt_ids_dims"] = []  # v0.3.64 has no such field
    config = getattr(comfy.supported_models, kind)(options)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "")
    randomised(model.diffusion_model)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, device, torch.device("cpu"))


def make_clip(folder: Path) -> comfy.sd.CLIP:
    """The demo's text encoder with random weights."""
    torch.manual_seed(0)
    file = folder / "text-encoder.safetensors"
    save_file(TextEncoder().state_dict(), file)
    return load_text_encoder(file)


def make_vae(latent_channels: int = 16) -> comfy.sd.VAE:
    """A TAESD."""
    taesd = comfy.taesd.taesd.TAESD(latent_channels=latent_channels)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(tensor.shape, generator=generator) * tensor[0].numel() ** -0.5
        for name, tensor in taesd.state_dict().items()
        if tensor.ndim
    }
    # Grey pictures on the whole: black and white ones would all score alike.
    (last,) = [name for name, tensor in weights.items() if tensor.shape == (3,)]
    weights[last] = torch.full((3,), 0.5)
    weights.update({"vae_scale": torch.tensor(1.0), "vae_shift": torch.tensor(0.0)})
    return comfy.sd.VAE(sd=weights)


class Brightness:
    """A reward that likes light pictures, those of red prompts less."""

    name = "brightness"
    differentiable = True
    weights = ""

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        weights = torch.tensor([0.5 if "red" in prompt else 1.0 for prompt in prompts])
        return images.mean(dim=(1, 2, 3)) * weights


def sample(model: comfy.model_patcher.ModelPatcher, clip: comfy.sd.CLIP, **changes: Any) -> Tensor:
    """Latents [1, 16, 8, 8] of ComfyUI's own KSampler: euler, simple, 3 steps, cfg 2, seed 5."""
    import nodes

    settings: dict[str, Any] = {
        "seed": 5,
        "steps": 3,
        "cfg": 2.0,
        "sampler_name": "euler",
        "scheduler": "simple",
        "denoise": 1.0,
        "prompt": "a red circle",
        **changes,
    }
    prompt = settings.pop("prompt")
    settings["positive"] = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
    settings["negative"] = clip.encode_from_tokens_scheduled(clip.tokenize(""))
    settings["latent_image"] = {"samples": torch.zeros(1, 16, 8, 8)}
    result: Tensor = nodes.KSampler().sample(model=model, **settings)[0]["samples"]
    return result
