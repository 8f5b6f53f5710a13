"""What this process draws with, by which workers are told apart (`calibri/likeness.py`)."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

from ..calibri.configuration import library_versions
from ..calibri.likeness import (
    ATTENTION,
    COMFYUI,
    DEVICE,
    MEND,
    MUST,
    PACK,
    PACK_FILES,
    TORCH,
    Surroundings,
    differences,
    digest_of_sources,
)
from . import runs

# What draws and scores, of the pack's folders.
_DRAWING = ("calibri", "demo", "nodes", "qrm", "rewards")


def versions() -> dict[str, str]:
    """Of ComfyUI, PyTorch (with its build) and this pack, its files included."""
    import torch

    pack = Path(__file__).absolute().parents[1]
    return {
        TORCH: str(torch.__version__),
        COMFYUI: runs.host_versions()["comfyui"],
        PACK: library_versions()["comfyui-calibri"],
        PACK_FILES: digest_of_sources(pack / folder for folder in _DRAWING),
    }


def surroundings() -> dict[str, str]:
    """All of them, and the device; ComfyUI must have been started."""
    import comfy
    import torch
    from comfy import model_management
    from comfy.ldm.modules.attention import optimized_attention

    device = model_management.get_torch_device()
    libraries = library_versions()
    return {
        **versions(),
        DEVICE: device.type,
        "device name": _name(device),
        **({"threads": str(torch.get_num_threads())} if device.type == "cpu" else {}),
        ATTENTION: optimized_attention.__name__,
        "python": libraries["python"],
        "numpy": libraries.get("numpy", "absent"),
        "transformers": metadata.version("transformers"),
        "comfyui's files": digest_of_sources([Path(path) for path in comfy.__path__]),
    }


def refusal(expected: Surroundings) -> str:
    """Why this process cannot work for a driver that has the `expected` versions; "" if it can."""
    if differing := differences(versions(), expected, MUST, "the driver's"):
        return f"{differing}. {MEND}"
    return ""


def _name(device: object) -> str:
    import torch

    kind = str(getattr(device, "type", device))
    if kind == "cpu":
        return f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}"
    known = getattr(torch, kind, None)
    return str(known.get_device_name(device)) if hasattr(known, "get_device_name") else kind
