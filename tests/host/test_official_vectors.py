"""Our taps on ComfyUI's classes give the outputs of Calibri's official code.

tests/vectors holds inputs and outputs that were recorded from it (on diffusers' models), see the
README there. ComfyUI's own key maps carry the weights from diffusers' names to ComfyUI's.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.utils
import numpy as np
import pytest
import safetensors
import torch
from comfy.ldm.flux.model import Flux
from comfy.ldm.modules.diffusionmodules import mmdit
from torch import Tensor, nn

from comfyui_calibri.calibri.backbones import read_backbone
from comfyui_calibri.calibri.coefficients import coefficient_space
from comfyui_calibri.calibri.taps import GainTaps

from .tiny_models import OPERATIONS

VECTORS = Path(__file__).parents[1] / "vectors"
SEED = 11


@dataclass(frozen=True)
class Vector:
    """One recorded call of the official code."""

    config: dict[str, Any]  # diffusers' configuration
    order: list[tuple[str, list[int]]]  # diffusers' parameters, names and shapes
    coefficients: dict[str, Any]  # the official code's, unflattened
    tensors: dict[str, Tensor]

    @property
    def inputs(self) -> dict[str, Tensor]:
        return self.starting_with("in.")

    def starting_with(self, prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def read_vector(name: str) -> Vector:
    with safetensors.safe_open(VECTORS / f"{name}.safetensors", framework="pt") as file:
        recorded = json.loads(file.metadata()["vector"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return Vector(recorded["config"], recorded["weights"], recorded["coefficients"], tensors)


def diffusers_weights(vector: Vector) -> dict[str, Tensor]:
    """The weights the official code ran with, drawn again and compared with their sums."""
    generator = torch.Generator().manual_seed(SEED)
    weights = {}
    for (name, shape), total in zip(vector.order, vector.tensors["weight_sums"], strict=True):
        noise = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            weights[name] = noise / math.prod(shape[1:]) ** 0.5
        elif "norm_" in name and name.endswith("weight"):
            weights[name] = 1.0 + 0.1 * noise
        else:
            weights[name] = 0.2 * noise
        torch.testing.assert_close(weights[name].double().sum(), total, rtol=0, atol=1e-4)
    if "pos_embed" in vector.tensors:
        weights["pos_embed.pos_embed"] = vector.tensors["pos_embed"]
    return weights


def load(
    model: nn.Module, weights: dict[str, Tensor], key_map: dict[str, Any], unit: float
) -> None:
    """Fill the model through one of ComfyUI's key maps, whose rows are in units of `unit`."""
    filled = {name: torch.full_like(value, torch.nan) for name, value in model.state_dict().items()}
    for name, weight in weights.items():
        target = key_map[name]
        if isinstance(target, str):
            filled[target].copy_(weight)
        elif len(target) == 3:  # shift and scale in another order
            filled[target[0]].copy_(target[2](weight))
        else:
            key, (dim, start, length) = target
            filled[key].narrow(dim, int(start * unit), int(length * unit)).copy_(weight)
    assert not any(value.isnan().any() for value in filled.values())
    model.load_state_dict(filled)
    model.eval().requires_grad_(False)


def make_flux(vector: Vector) -> nn.Module:
    config = vector.config
    heads = config["num_attention_heads"]
    ours = {
        "hidden_size": heads * config["attention_head_dim"],
        "depth": config["num_layers"],
        "depth_single_blocks": config["num_single_layers"],
    }
    model = Flux(
        in_channels=config["in_channels"],
        out_channels=config["in_channels"],
        vec_in_dim=config["pooled_projection_dim"],
        context_in_dim=config["joint_attention_dim"],
        mlp_ratio=4.0,
        num_heads=heads,
        axes_dim=config["axes_dims_rope"],
        theta=10_000,
        patch_size=1,
        qkv_bias=True,
        guidance_embed=True,
        txt_ids_dims=[],
        operations=OPERATIONS,
        **ours,
    )
    load(model, diffusers_weights(vector), comfy.utils.flux_to_diffusers(ours), 1.0)
    return model


def make_sd3(vector: Vector) -> nn.Module:
    """ComfyUI's MMDiT of its own modules, at a width that its constructor has no way to ask for."""
    config = vector.config
    heads, blocks = config["num_attention_heads"], config["num_layers"]
    width, side = heads * config["attention_head_dim"], config["pos_embed_max_size"]
    model = mmdit.MMDiT(
        input_size=None,
        in_channels=config["in_channels"],
        pos_embed_max_size=side,
        num_patches=side**2,
        depth=1,
        skip_blocks=True,
        operations=OPERATIONS,
    )
    model.x_embedder = mmdit.PatchEmbed(
        None, 2, config["in_channels"], width, strict_img_size=False, operations=OPERATIONS
    )
    model.t_embedder = mmdit.TimestepEmbedder(width, operations=OPERATIONS)
    pooled = config["pooled_projection_dim"]
    model.y_embedder = mmdit.VectorEmbedder(pooled, width, operations=OPERATIONS)
    model.context_embedder = OPERATIONS.Linear(config["joint_attention_dim"], width)
    model.pos_embed = torch.empty(1, side**2, width)
    model.joint_blocks = nn.ModuleList(
        mmdit.JointBlock(
            width,
            heads,
            qkv_bias=True,
            pre_only=i == blocks - 1,
            qk_norm="rms",
            x_block_self_attn=i in config["dual_attention_layers"],
            operations=OPERATIONS,
        )
        for i in range(blocks)
    )
    model.final_layer = mmdit.FinalLayer(width, 2, config["out_channels"], operations=OPERATIONS)
    key_map = comfy.utils.mmdit_to_diffusers({"depth": blocks, "num_blocks": blocks})
    load(model, diffusers_weights(vector), key_map, width / (64 * blocks))
    return model


def call_flux(model: nn.Module, inputs: dict[str, Tensor], copies: int) -> Tensor:
    def tile(name: str) -> Tensor:
        value = inputs[name]
        if name.endswith("_ids"):
            value = value.expand(len(inputs["timestep"]), *value.shape)
        return value.repeat(copies, *(1,) * (value.ndim - 1))

    forward: Any = model.forward_orig
    output: Tensor = forward(
        tile("hidden_states"),
        tile("img_ids"),
        tile("encoder_hidden_states"),
        tile("txt_ids"),
        tile("timestep"),
        tile("pooled_projections"),
        tile("guidance"),
    )
    return output


def call_sd3(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    output: Tensor = model(
        inputs["hidden_states"],
        inputs["timestep"],
        y=inputs["pooled_projections"],
        context=inputs["encoder_hidden_states"],
    )
    return output


def flux_names(coefficients: dict[str, Any], member: int, granularity: str) -> dict[str, float]:
    named: dict[str, float] = {}
    single = {"block": "", "layer": ".fused", "gate": ".fused.joint"}[granularity]
    for i, value in enumerate(coefficients["scales_single"][member]):
        named[f"single.{i}{single}"] = value
    for i, value in enumerate(coefficients["scales_double"][member]):
        if granularity == "block":
            named[f"double.{i}"] = value
            continue
        image = ".image" if granularity == "gate" else ""
        named[f"double.{i}.attention{image}"], named[f"double.{i}.mlp{image}"] = value
    if granularity == "gate":
        for i, (attention, mlp) in enumerate(coefficients["scales_double_ctx"][member]):
            named[f"double.{i}.attention.text"], named[f"double.{i}.mlp.text"] = attention, mlp
    return named


def sd3_names(coefficients: dict[str, Any], member: int) -> dict[str, float]:
    named: dict[str, float] = {}
    for stream, group in (("image", "scales_main"), ("text", "scales_context")):
        for i, (attention, mlp) in enumerate(coefficients[group][member]):
            named[f"joint.{i}.attention.{stream}"] = attention
            named[f"joint.{i}.mlp.{stream}"] = mlp
    for i, value in enumerate(coefficients["scales_attn2"][member]):
        named[f"joint.{i}.attention2.image"] = value
    return named


def gains_of(model: nn.Module, granularity: str, members: list[dict[str, float]]) -> Tensor:
    """The members' gains [M, T]."""
    space = coefficient_space(read_backbone(model), granularity)
    vectors = np.stack([space.vector(member) for member in members])
    return torch.from_numpy(space.expand(vectors)).float()


@pytest.mark.parametrize("granularity", ["block", "layer", "gate"])
def test_flux(granularity: str) -> None:
    vector = read_vector({"layer": "flux_layer_ensemble"}.get(granularity, f"flux_{granularity}"))
    model, weights = make_flux(vector), torch.tensor(vector.coefficients["models_scales"])
    plain = call_flux(model, vector.inputs, 1)
    torch.testing.assert_close(plain, vector.tensors["output_uncalibrated"], rtol=0, atol=1e-5)
    names = [flux_names(vector.coefficients, m, granularity) for m in range(len(weights))]
    gains = gains_of(model, granularity, names)
    # All members in one batch, each row with its member's gains.
    with GainTaps(model, read_backbone(model)).scaled(gains.repeat_interleave(len(plain), dim=0)):
        members = call_flux(model, vector.inputs, len(weights))
    combined = torch.einsum("m,m...->...", weights, members.unflatten(0, (len(weights), -1)))
    torch.testing.assert_close(combined, vector.tensors["output"], rtol=0, atol=1e-5)


def test_sd35_medium() -> None:
    vector = read_vector("sd35_medium")
    model = make_sd3(vector)
    plain = call_sd3(model, vector.inputs)
    torch.testing.assert_close(plain, vector.tensors["output_uncalibrated"], rtol=0, atol=1e-5)
    gains = gains_of(model, "gate", [sd3_names(vector.coefficients, 0)])
    with GainTaps(model, read_backbone(model)).scaled(gains):
        member = call_sd3(model, vector.inputs)
    (weight,) = vector.coefficients["models_scales"]
    torch.testing.assert_close(weight * member, vector.tensors["output"], rtol=0, atol=1e-5)


def test_sd35_large_with_guidance() -> None:
    """Two members in one batch: one sees the prompt, the other the negative prompt."""
    vector = read_vector("sd35_large_cfg")
    model, negative = make_sd3(vector), vector.starting_with("uncond.")
    both = {name: torch.cat([value, negative[name]]) for name, value in vector.inputs.items()}
    gains = gains_of(model, "gate", [sd3_names(vector.coefficients, m) for m in range(2)])
    with GainTaps(model, read_backbone(model)).scaled(gains.repeat_interleave(2, dim=0)):
        positive_output, negative_output = call_sd3(model, both).chunk(2)
    first, second = vector.coefficients["models_scales"]
    combined = first * positive_output + second * negative_output
    torch.testing.assert_close(combined, vector.tensors["output"], rtol=0, atol=2e-5)
