"""Prompts for the background tests: a small calibration, and what a user draws meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.numpy import load_file
from safetensors.torch import save_file

from comfyui_calibri.calibri.journal import Journal

from .tiny_patchers import make_model

Prompt = dict[str, dict[str, Any]]

TINY = "tiny-sd3.safetensors"
BACKGROUND = "20"  # the node's id in `calibration`


def write_tiny_model(models: Path) -> None:
    """An SD3 of two blocks with random weights, which every ComfyUI can load, as TINY."""
    folder = models / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    weights = make_model("sd3").model.diffusion_model.state_dict()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / TINY)


def calibration(file: str, run_name: str, **changes: Any) -> Prompt:
    """A calibration in the background: 6 generations of 16 candidates, 4 images each."""
    inputs = {
        "model": ["10", 0],
        "clip": ["11", 0],
        "vae": ["12", 0],
        "prompts": ["13", 0],
        "held_out": ["14", 0],
        "reward": ["15", 0],
        "negative": "",
        "sampler": "euler_ancestral",
        "scheduler": "simple",
        "steps": 2,
        "cfg": 1.0,
        "guidance": 3.5,
        "width": 64,
        "height": 64,
        "granularity": "gate",
        "profile": "default",
        "generations": 6,
        "seed": 1,
        "run_name": run_name,
        "bucket_size": 4,
        "validate_every": 2,
        "keep_anyway": True,  # so small a search often finds nothing better than the plain model
        "idle_seconds": 0.2,
        "slice_seconds": 1.0,
        **changes,
    }
    return {
        **_loaders(file),
        "13": _prompts("train", 16),
        "14": _prompts("test", 4),
        "15": {"class_type": "CalibriTestReward", "inputs": {}},
        BACKGROUND: {"class_type": "CalibriCalibrateBackground", "inputs": inputs},
    }


def picture(file: str, seed: int, steps: int = 2, batch_size: int = 1) -> Prompt:
    """Draw, score and save pictures; node 21 knows its own id and counts its executions."""
    sampling = {
        "model": ["21", 0],
        "positive": ["22", 0],
        "negative": ["23", 0],
        "latent_image": ["24", 0],
        "seed": seed,
        "steps": steps,
        "cfg": 1.0,
        "sampler_name": "euler",
        "scheduler": "simple",
        "denoise": 1.0,
    }
    size = {"width": 64, "height": 64, "batch_size": batch_size}
    scored = {"images": ["26", 0], "reward": ["27", 0], "prompt": "a red circle"}
    return {
        **_loaders(file),
        "21": {"class_type": "CalibriTestCounter", "inputs": {"model": ["10", 0]}},
        "22": _encoded("a red circle"),
        "23": _encoded(""),
        "24": {"class_type": "EmptySD3LatentImage", "inputs": size},
        "25": {"class_type": "KSampler", "inputs": sampling},
        "26": {"class_type": "VAEDecode", "inputs": {"samples": ["25", 0], "vae": ["12", 0]}},
        "27": {"class_type": "CalibriDemoReward", "inputs": {}},
        "28": {"class_type": "CalibriScoreImages", "inputs": scored},
        "29": {
            "class_type": "SaveImage",
            "inputs": {"images": ["26", 0], "filename_prefix": "user"},
        },
    }


SEED_DECIDES = {"25", "26", "28", "29"}
"""The nodes of `picture` that another seed makes ComfyUI execute again."""


def rewards(user: Path, run: str) -> list[tuple[Any, ...]]:
    """All that a run's journal measured, exactly: role, generation, vectors, batches, rewards."""
    with Journal.read(user / "calibri" / "runs" / run / "journal.sqlite") as journal:
        return [
            (e.role, e.generation, e.vectors.tobytes(), e.bucket, e.rewards.tobytes())
            for e in journal.evaluations()
        ]


def tensors(preset: Path) -> dict[str, bytes]:
    """A preset's tensors, bit for bit."""
    return {name: tensor.tobytes() for name, tensor in load_file(preset).items()}


def _loaders(file: str) -> Prompt:
    unet = {"unet_name": file, "weight_dtype": "default"}
    text_encoder = {"text_encoder": "calibri-demo-text-encoder.safetensors"}
    return {
        "10": {"class_type": "UNETLoader", "inputs": unet},
        "11": {"class_type": "CalibriLoadDemoTextEncoder", "inputs": text_encoder},
        "12": {"class_type": "VAELoader", "inputs": {"vae_name": "calibri-demo-vae.safetensors"}},
    }


def _prompts(split: str, count: int) -> dict[str, Any]:
    inputs = {"source": "demo", "text": "", "file": "none", "count": count, "seed": 1}
    return {"class_type": "CalibriPromptSet", "inputs": {**inputs, "split": split}}


def _encoded(text: str) -> dict[str, Any]:
    return {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": ["11", 0]}}
