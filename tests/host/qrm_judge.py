"""The independent judge of what Apply QRM does in ComfyUI's sampling.

`judged` gives the plain model, row by row, the weights that a QRM asks for: what its vectors say
is written into the adaLN linears for the length of a call of one row. No taps, no wrappers, no
batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from comfyui_calibri.calibri.vectors import Vectors
from comfyui_calibri.nodes.patching import diffusion_model
from comfyui_calibri.nodes.qrm import with_qrm
from comfyui_calibri.qrm.config import QRMConfig
from comfyui_calibri.qrm.files import QRMFile
from comfyui_calibri.qrm.module import QRM

WIDTH = 64  # of the tiny models' prompts


@dataclass(frozen=True)
class Applied:
    """A QRM with Apply QRM's inputs."""

    file: QRMFile
    strength: float = 1.0
    guidance: str = "both"

    def on(self, model: ModelPatcher, **more: Any) -> ModelPatcher:
        return with_qrm(model, self.file, self.strength, guidance=self.guidance, **more)


def make_qrm(model: ModelPatcher, mode: str = "add", seed: int = 0, size: float = 0.3) -> QRMFile:
    """A QRM for this model that has learned something."""
    # Not in inference mode, as files are trained elsewhere.
    with torch.inference_mode(False), torch.random.fork_rng():
        torch.manual_seed(seed)
        config = QRMConfig.for_backbone(diffusion_model(model), WIDTH, WIDTH, mode)
        module = QRM(config).requires_grad_(False).eval()
        for name, parameter in module.named_parameters():
            if name.endswith(".up"):
                torch.nn.init.normal_(parameter, std=size)
    return QRMFile(module)


@contextmanager
def written(dit: torch.nn.Module, vectors: Vectors) -> Iterator[None]:
    """Within it, the linears have the vectors [1, chunks, H] of one sample in their weights."""
    kept = []
    for path in vectors.paths:
        linear = dit.get_submodule(path)
        kept.append((linear, linear.weight.clone(), linear.bias.clone()))
        if path in vectors.scale:
            factors = 1 + vectors.scale[path].flatten()
            linear.weight *= factors[:, None]
            linear.bias *= factors
        if path in vectors.add:
            linear.bias += vectors.add[path].flatten()
    try:
        yield
    finally:
        for linear, weight, bias in kept:
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)


@contextmanager
def judged(model: ModelPatcher, *applied: Applied) -> Iterator[None]:
    """Within it, each call of a plain `model` is one with these QRMs."""
    base = model.model
    real = base._apply_model

    def call(
        x: Tensor,
        t: Tensor,
        c_concat: Any = None,
        c_crossattn: Any = None,
        control: Any = None,
        transformer_options: Any = None,
        **kwargs: Any,
    ) -> Tensor:
        entries: Sequence[int] = transformer_options["cond_or_uncond"]
        rows = []
        for row in range(len(x)):
            one = slice(row, row + 1)
            entry = entries[row // (len(x) // len(entries))]
            changes = Vectors()
            for qrm in applied:
                if entry == 0 or qrm.guidance == "both":
                    found = qrm.file.module(t[one], c_crossattn[one], None, kwargs["y"][one])
                    changes = changes + found.vectors * qrm.strength
            mine = {
                name: value[one] if isinstance(value, Tensor) and len(value) == len(x) else value
                for name, value in kwargs.items()
            }
            with written(base.diffusion_model, changes):
                rows.append(
                    real(
                        x[one],
                        t[one],
                        c_concat,
                        c_crossattn[one],
                        control,
                        transformer_options,
                        **mine,
                    )
                )
        return torch.cat(rows)

    base._apply_model = call
    try:
        yield
    finally:
        del base._apply_model
