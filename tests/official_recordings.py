"""Calls in the format of the official code's recordings, made by `official_reference.py`.

The tests that read the official recordings run on these too, and so in a clone that has no others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from .official_reference import GRID, Member, Recording, call, official_output

FLUX = {
    "in_channels": 8,
    "num_layers": 2,
    "num_single_layers": 3,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "pooled_projection_dim": 16,
    "guidance_embeds": True,
    "axes_dims_rope": [4, 6, 6],
}
# ComfyUI's class has heads of 64 channels, and as many as blocks.
SD3 = {
    "sample_size": 8,
    "in_channels": 4,
    "num_layers": 3,
    "attention_head_dim": 64,
    "num_attention_heads": 3,
    "joint_attention_dim": 24,
    "caption_projection_dim": 192,
    "pooled_projection_dim": 16,
    "out_channels": 4,
    "pos_embed_max_size": 8,
    "dual_attention_layers": [],
    "qk_norm": None,
}
SD35 = {"dual_attention_layers": [0, 1], "qk_norm": "rms_norm"}
QWEN_IMAGE = {
    "in_channels": 16,
    "out_channels": 4,
    "num_layers": 3,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "axes_dims_rope": [4, 6, 6],
}
CLASSES = {
    "flux": ("FluxTransformer2DModel", FLUX),
    "sd3": ("SD3Transformer2DModel", SD3),
    "qwen": ("QwenImageTransformer2DModel", QWEN_IMAGE),
}
RECORDINGS = (
    Recording("flux_block", "flux", (1.5,), "block"),
    Recording(
        "flux_block_schnell", "flux", (-0.5, 2.0), "block", changes={"guidance_embeds": False}
    ),
    Recording("flux_layer", "flux", (1.25, -0.75), "layer"),
    Recording("flux_gate", "flux", (0.75,)),
    Recording("flux_gate_of_three", "flux", (1.5, -0.25, 0.5)),
    Recording("flux_with_a_silent_member", "flux", (1.0, 0.0), "layer"),
    Recording("sd3", "sd3", (0.5,)),
    Recording("sd3_of_two", "sd3", (1.5, -0.75)),
    Recording("sd3_guided", "sd3", (7.0, -6.0), mode="cfg"),
    Recording("sd35", "sd3", (1.25,), changes=SD35),
    Recording("sd35_of_three", "sd3", (0.5, 0.75, -0.25), changes=SD35),
    Recording("sd35_guided", "sd3", (4.5, -3.0), mode="cfg", changes=SD35),
    Recording(
        "sd35_second_attention_elsewhere",
        "sd3",
        (1.0, 0.5),
        changes={**SD35, "dual_attention_layers": [2, 1]},
    ),
    Recording("sd35_guided_with_a_third_member", "sd3", (3.0, -2.5, 9.0), mode="cfg", changes=SD35),
    Recording("sd3_guided_without_negative_weight", "sd3", (3.0, 0.0), mode="cfg"),
    Recording("qwen", "qwen", (1.25,), padded=True),
    Recording("qwen_without_mask", "qwen", (-0.5, 1.25)),
    Recording("qwen_guided_without_mask", "qwen", (4.0, -3.0), mode="cfg"),
    Recording("qwen_of_three", "qwen", (1.5, -0.5, 0.25), padded=True),
    Recording("qwen_guided", "qwen", (4.0, -3.0), mode="cfg", padded=True),
    Recording("qwen_guided_unevenly", "qwen", (-2.0, 0.75), mode="cfg", padded=True),
    Recording("qwen_guided_without_weight", "qwen", (0.0, 1.5), mode="cfg", padded=True),
    Recording("qwen_guided_almost_without_weight", "qwen", (5e-6, 1.5), mode="cfg", padded=True),
    Recording("qwen_silent", "qwen", (0.0, 0.0), padded=True),
)


def write_vector(recording: Recording, folder: Path) -> Path:
    """Write the recording's JSON and tensors; the JSON's path. Needs diffusers."""
    import diffusers

    name, config = CLASSES[recording.backbone]
    config = {**config, **recording.changes}
    generator = torch.Generator().manual_seed(3)
    model = getattr(diffusers, name)(**config).eval().requires_grad_(False)
    draw_weights(model, generator)
    members = [draw_member(recording, config, generator) for _ in recording.weights]
    inputs = draw_inputs(recording, config, generator, tokens=6)
    negative = draw_inputs(recording, config, generator, tokens=5)
    negative["hidden_states"] = inputs["hidden_states"]
    guided = recording.mode == "cfg"
    output = official_output(recording, model, members, inputs, negative)
    plain = call(model, inputs)
    tensors = {f"weights.{key}": value for key, value in model.state_dict().items()}
    tensors |= {f"in.{key}": value for key, value in inputs.items()}
    tensors |= {f"uncond.{key}": value for key, value in negative.items() if guided}
    tensors |= {"output": output, "output_uncalibrated": plain}
    tensors = {key: value.clone().contiguous() for key, value in tensors.items()}
    save_file(tensors, folder / f"{recording.name}.safetensors")
    flat = [value for group in zip(*members, strict=True) for value in numbers(group)]
    ones = [1.0] * len(flat) + [1.0, *[0.0] * (len(members) - 1)]
    described = {
        "file": f"{recording.name}.safetensors",
        "backbone": recording.backbone,
        "mode": recording.mode,
        "diffusers_class": name,
        "config": config,
        "shapes": shapes(recording, config, members),
        "coefficients": [*flat, *recording.weights],
        "default_coefficients": ones,
        "default_max_abs_diff_vs_plain": None if guided else 0.0,
        "img_shapes": [[[1, *GRID]], [[1, *GRID]]] if recording.backbone == "qwen" else None,
    }
    path = folder / f"{recording.name}.json"
    path.write_text(json.dumps(described))
    return path


def draw_weights(model: nn.Module, generator: torch.Generator) -> None:
    """Weights that keep the streams' size, so that every branch counts."""
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if weight.ndim > 1:
            weight.copy_(noise / math.prod(weight.shape[1:]) ** 0.5)
        elif name.endswith("weight"):
            weight.copy_(1.0 + 0.1 * noise)
        else:
            weight.copy_(0.2 * noise)


def draw_member(recording: Recording, config: dict[str, Any], generator: torch.Generator) -> Member:
    """Coefficients in the official nesting, in the order of the flat vector's groups."""

    def draw(*shape: int) -> Any:
        return torch.empty(shape).uniform_(-0.9, 1.9, generator=generator).tolist()

    blocks = config["num_layers"]
    if recording.backbone == "qwen":
        return [draw(blocks, 4)]
    if recording.backbone == "sd3":
        return [draw(blocks, 2), draw(blocks - 1, 2), draw(len(config["dual_attention_layers"]))]
    singles = draw(config["num_single_layers"])
    if recording.granularity == "block":
        return [draw(blocks), singles]
    if recording.granularity == "layer":
        return [draw(blocks, 2), singles]
    return [draw(blocks, 2), draw(blocks, 2), singles]


def shapes(recording: Recording, config: dict[str, Any], members: list[Member]) -> dict[str, int]:
    blocks, count = config["num_layers"], len(members)
    sizes = [count * len(list(numbers(group))) for group in members[0]]
    common = {"total": sum(sizes) + count, "n_models": count}
    if recording.backbone == "qwen":
        return {**common, "n_blocks": blocks}
    if recording.backbone == "sd3":
        kinds = {"main": sizes[0], "context": sizes[1], "attn2": sizes[2]}
        second = len(config["dual_attention_layers"])
        counts = {"n_blocks": blocks, "n_context": blocks - 1, "n_attn2": second}
        return {**common, **kinds, **counts}
    names = ["doubles_main", "doubles_ctx", "singles"]
    if recording.granularity != "gate":
        del names[1]
    counts = {"n_double": blocks, "n_single": config["num_single_layers"]}
    return {**common, **dict(zip(names, sizes, strict=True)), **counts}


def numbers(nested: Any) -> Iterator[float]:
    if isinstance(nested, (list, tuple)):
        for inner in nested:
            yield from numbers(inner)
    else:
        yield nested


def draw_inputs(
    recording: Recording, config: dict[str, Any], generator: torch.Generator, tokens: int
) -> dict[str, Tensor]:
    """A call for two samples with a prompt of `tokens`."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(2, *shape, generator=generator)

    inputs = {"encoder_hidden_states": draw(tokens, config["joint_attention_dim"])}
    timestep = torch.tensor([0.7, 0.3])
    if recording.backbone == "sd3":
        inputs["hidden_states"] = draw(config["in_channels"], 8, 8)
        return inputs | {"pooled_projections": draw(16), "timestep": 1000.0 * timestep}
    height, width = GRID
    inputs |= {"hidden_states": draw(height * width, config["in_channels"]), "timestep": timestep}
    if recording.backbone == "qwen" and not recording.padded:
        return inputs
    if recording.backbone == "qwen":
        mask = torch.ones(2, tokens, dtype=torch.int32)
        mask[1, tokens - 2 :] = 0
        return inputs | {"encoder_hidden_states_mask": mask}
    rows, columns = torch.arange(float(height)), torch.arange(float(width))
    inputs |= {
        "pooled_projections": draw(16),
        "img_ids": torch.cartesian_prod(torch.zeros(1), rows, columns),
        "txt_ids": torch.zeros(tokens, 3),
    }
    return inputs | ({"guidance": torch.tensor([3.5, 2.0])} if config["guidance_embeds"] else {})
