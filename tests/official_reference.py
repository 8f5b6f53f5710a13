"""What Calibri's official code computes, said a second time and in another way.

Here a member is a plain diffusers model with its coefficients folded into the weights of the
branches' last projections: no taps, no names, no map of the backbone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

GRID = (4, 6)  # an image's tokens, high and wide

Group = list[Any]  # nested lists of coefficients, one for each block
Member = list[Group]  # in the order of the flat vector's groups


@dataclass(frozen=True)
class Recording:
    """One call of the official code: of which model, with how many members, in which mode."""

    name: str
    backbone: str  # "flux", "sd3", "qwen"
    weights: tuple[float, ...]  # one for each member
    granularity: str = "gate"
    mode: str = "ensemble"  # or "cfg": the second member sees the negative prompt
    changes: dict[str, Any] = field(default_factory=dict)  # to the class's configuration
    padded: bool = False  # Qwen: one prompt is shorter, its padding masked


def call(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    images = {"img_shapes": [[(1, *GRID)]] * 2} if hasattr(model, "txt_norm") else {}
    with torch.inference_mode():
        output: Tensor = model(**inputs, **images, return_dict=False)[0]
    return output


def official_output(
    recording: Recording,
    model: nn.Module,
    members: list[Member],
    inputs: dict[str, Tensor],
    negative: dict[str, Tensor],
) -> Tensor:
    """As the official pipelines sum their members."""
    weights = recording.weights

    def weighted(number: int, seen: dict[str, Tensor]) -> Tensor:
        return weights[number] * call(folded(recording, model, members[number]), seen)

    if recording.mode == "ensemble":
        if recording.backbone != "flux" and not any(weights):
            return call(model, inputs)
        return sum(weighted(number, inputs) for number in range(len(weights)))
    # Where a member's weight is exactly 0 the plain model runs instead, and counts fully.
    cond = weighted(0, inputs) if weights[0] else call(model, inputs)
    both = cond + (weighted(1, negative) if weights[1] else call(model, negative))
    if recording.backbone != "qwen":
        return both
    if abs(weights[0]) > 1e-5:
        cond = cond / weights[0]
    lengths = cond.norm(dim=-1, keepdim=True) / both.norm(dim=-1, keepdim=True)
    return both * lengths


def folded(recording: Recording, model: nn.Module, member: Member) -> nn.Module:
    """A copy of the model with a member's coefficients in its weights."""
    model = copy.deepcopy(model)
    blocks: Sequence[Any] = list(model.get_submodule("transformer_blocks").children())
    if recording.backbone == "qwen":
        for block, (image, text, _, _) in zip(blocks, member[0], strict=True):
            fold(block.attn.to_out[0], image)
            fold(block.attn.to_add_out, text)
        return model
    if recording.backbone == "sd3":
        main, context, second = member
        for block, (attention, mlp) in zip(blocks, main, strict=True):
            fold(block.attn.to_out[0], attention)
            fold(block.ff.net[2], mlp)
        for block, (attention, mlp) in zip(blocks[:-1], context, strict=True):
            fold(block.attn.to_add_out, attention)
            fold(block.ff_context.net[2], mlp)
        with_second = [block for block in blocks if block.attn2 is not None]
        for block, attention in zip(with_second, second, strict=True):
            fold(block.attn2.to_out[0], attention)
        return model
    *doubles, singles = member
    image, text = doubles[0], doubles[-1]
    if recording.granularity == "block":
        image = text = [(value, value) for value in image]
    for block, own, other in zip(blocks, image, text, strict=True):
        fold(block.attn.to_out[0], own[0])
        fold(block.ff.net[2], own[1])
        fold(block.attn.to_add_out, other[0])
        fold(block.ff_context.net[2], other[1])
    single_blocks: Sequence[Any] = list(model.get_submodule("single_transformer_blocks").children())
    for block, value in zip(single_blocks, singles, strict=True):
        fold(block.proj_out, value)
    return model


def fold(projection: nn.Linear, coefficient: float) -> None:
    projection.weight.mul_(coefficient)
    projection.bias.mul_(coefficient)
