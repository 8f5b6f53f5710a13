"""The independent judge of what other nodes do together with a preset.

`folded_members` gives ComfyUI's sampling the preset's members one after the other, each with its
coefficients in the model's adaLN weights: no taps, no wrappers, no batches of members. Whatever
else is on the model acts on these too, so the same nodes must give the same picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from comfy_api.latest import io
from torch import Tensor

from comfyui_calibri.calibri.backbones import Backbone
from comfyui_calibri.calibri.coefficients import coefficient_space
from comfyui_calibri.calibri.presets import Guidance, Member, Preset
from comfyui_calibri.nodes.apply import CalibriApply
from comfyui_calibri.nodes.patching import backbone_of

KINDS = ("single", "ensemble", "guided")
WEIGHTS = {"single": (1.0,), "ensemble": (1.3, -0.4), "guided": (3.4, -2.1)}
SCALE = 3.0  # the guided preset's g; for the others KSampler's cfg
SIGMAS = torch.tensor([1.0, 0.7, 0.3, 0.0])

Combine = Callable[[ModelPatcher], ModelPatcher]
Picture = Callable[[ModelPatcher, float], Tensor]  # (model, cfg) -> latents


def make_preset(model: ModelPatcher, kind: str, seed: int = 0) -> Preset:
    """A preset of random coefficients for this model: one of KINDS."""
    backbone = backbone_of(model)
    space = coefficient_space(backbone, "gate")
    generator = torch.Generator().manual_seed(seed)
    members = []
    for weight in WEIGHTS[kind]:
        values = torch.empty(len(space.names)).uniform_(0.4, 1.6, generator=generator)
        members.append(Member(dict(zip(space.names, values.tolist(), strict=True)), weight))
    guidance = Guidance(SCALE) if kind == "guided" else None
    return Preset(backbone.family, backbone.blocks, "gate", tuple(members), guidance=guidance)


def apply(model: ModelPatcher, preset: Preset, **changes: float) -> ModelPatcher:
    """Apply Calibri."""
    settings = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, **changes}
    calibrated: ModelPatcher = CalibriApply.execute(model=model, preset=preset, **settings).args[0]
    return calibrated


def gains(model: ModelPatcher, preset: Preset) -> list[list[float]]:
    """Each member's gains, tap by tap."""
    space = coefficient_space(backbone_of(model), preset.granularity)
    vectors = [space.vector(member.coefficients)[None] for member in preset.members]
    return [space.expand(vector)[0].tolist() for vector in vectors]


@contextmanager
def folded(dit: torch.nn.Module, backbone: Backbone, gains: list[float]) -> Iterator[None]:
    """Within it, the DiT's adaLN rows, and so its gates, are `gains` times as large."""
    kept = []
    for tap, gain in zip(backbone.taps, gains, strict=True):
        linear = dit.get_submodule(tap.module)
        width = linear.out_features // tap.chunks
        for tensor in (linear.weight, linear.bias):
            rows = tensor[tap.chunk * width : (tap.chunk + 1) * width]
            kept.append((rows, rows.clone()))
            rows *= gain
    try:
        yield
    finally:
        for rows, values in kept:
            rows.copy_(values)


@contextmanager
def folded_members(
    model: ModelPatcher, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Within it, each prediction that anybody asks of a plain `model` is the preset's.

    Members are folded for each prediction, into the weights as others have patched them.
    """
    backbone, of_members = backbone_of(model), gains(model, preset)
    real = comfy.samplers.calc_cond_batch
    real_formula = comfy.samplers.cfg_function
    weights = [member.weight for member in preset.members]

    def of_member(m: int, base: BaseModel, conds: Any, *rest: Any) -> list[Tensor]:
        with folded(base.diffusion_model, backbone, of_members[m]):
            return real(base, conds, *rest)

    def calc_cond_batch(
        base: BaseModel, conds: Any, x: Tensor, sigma: Tensor, model_options: Any
    ) -> list[Tensor]:
        rest = (x, sigma, model_options)
        if preset.guidance is not None:
            alone = [[c if c is mine else None for c in conds] for mine in conds]
            return [of_member(min(k, 1), base, alone[k], *rest)[k] for k in range(len(conds))]
        found = [of_member(m, base, conds, *rest) for m in range(len(weights))]
        # FLUX's and SD3's x0 = x - sigma * v: a sum of velocities, seen as denoised latents.
        return [
            x + sum(w * (member[k] - x) for w, member in zip(weights, found, strict=True))
            for k in range(len(conds))
        ]

    def cfg_function(
        base: Any, c: Tensor, u: Tensor, scale: float, x: Tensor, *rest: Any, **kw: Any
    ) -> Tensor:
        options = kw.pop("model_options")
        if preset.guidance is not None:
            mixed = x + weights[0] * (c - x) + weights[1] * (u - x)
            options = {**options, "sampler_cfg_function": lambda _: x - mixed}
        return real_formula(base, c, u, scale, x, *rest, model_options=options, **kw)

    with monkeypatch.context() as patched:
        patched.setattr(comfy.samplers, "calc_cond_batch", calc_cond_batch)
        patched.setattr(comfy.samplers, "cfg_function", cfg_function)
        yield


def assert_alike(found: Tensor, expected: Tensor, relative: float = 1e-4) -> None:
    """Equal but for the last bits of float32 along a whole trajectory."""
    assert torch.isfinite(expected).all()
    worst = (found - expected).abs().max() / expected.abs().max()
    assert worst <= relative, f"they differ by {worst:.1e}"


def assert_different(found: Tensor, other: Tensor) -> None:
    """A difference no rounding makes."""
    assert (found - other).abs().max() > 1e-3 * other.abs().max()


def assert_combines(
    model: ModelPatcher,
    kind: str,
    combine: Combine,
    picture: Picture,
    monkeypatch: pytest.MonkeyPatch,
    relative: float = 1e-4,
) -> None:
    """A preset with `combine`, before and after it, gives the folded members' picture with it."""
    preset, other = make_preset(model, kind), combine(model)
    with folded_members(model, preset, monkeypatch):
        expected = picture(other, SCALE)
        assert_different(expected, picture(model, SCALE))  # the other node does something
    assert_different(expected, picture(other, SCALE))  # and so does the preset
    # A guided preset's own scale counts, whatever the cfg.
    cfg = 1.0 if kind == "guided" else SCALE
    for calibrated in (apply(other, preset), combine(apply(model, preset))):
        assert_alike(picture(calibrated, cfg), expected, relative)


def call(node: type, **inputs: Any) -> Any:
    """The first output of a node of ComfyUI's, of either generation of its API."""
    is_new = issubclass(node, io.ComfyNode)
    function = node.execute if is_new else getattr(node(), node.FUNCTION)  # type: ignore
    return function(**inputs)[0]


def noise(rows: int = 2, channels: int = 16) -> Tensor:
    return torch.randn(rows, channels, 8, 8, generator=torch.Generator().manual_seed(3))


def encode(clip: CLIP, text: str) -> list[Any]:
    conditioning: list[Any] = clip.encode_from_tokens_scheduled(
        clip.tokenize(text), add_dict={"guidance": 3.5}
    )
    return conditioning


def sample(
    model: ModelPatcher,
    positive: list[Any],
    negative: list[Any],
    cfg: float = SCALE,
    sigmas: Tensor = SIGMAS,
    rows: int = 2,
) -> Tensor:
    """Latents [rows, 16, 8, 8] of ComfyUI's CFGGuider with Euler's method."""
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return run(guider, sigmas, rows)


def run(guider: comfy.samplers.CFGGuider, sigmas: Tensor = SIGMAS, rows: int = 2) -> Tensor:
    """Latents [rows, 16, 8, 8] of this guider with Euler's method."""
    result: Tensor = guider.sample(
        noise(rows),
        torch.zeros(rows, 16, 8, 8),
        comfy.samplers.sampler_object("euler"),
        sigmas,
        disable_pbar=True,
    )
    return result
