"""Our taps on diffusers' models against the official code's recorded outputs.

The coefficients pass through the same mapping as an imported checkpoint's, the members are summed
by `ensemble.py`: what is compared is what the nodes run. It runs in float64, where any CPU gives
the same difference; what is left of it is the rounding of the recording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .backbones import UnknownBackboneError, read_backbone
from .coefficients import CoefficientSpace, coefficient_space
from .ensemble import combine, combine_guidance
from .official import OfficialCheckpointError, OfficialLayout, as_run, read_layout, unflatten
from .official_vector import OfficialVector, OfficialVectorError
from .recorded_model import call, make_model
from .taps import GainTaps

TOLERANCE = 1e-5  # of the largest recorded output
# Below it the official code does not divide Qwen-Image's conditional prediction by its weight
# before it takes the length of its tokens.
SMALLEST_WEIGHT = 1e-5

Member = Mapping[str, float]  # coefficient -> value, 1 where it says nothing


@dataclass(frozen=True)
class Comparison:
    """How far a computed output is from the recorded one."""

    difference: float  # largest absolute one
    bound: float

    @property
    def agrees(self) -> bool:
        return self.difference <= self.bound  # NaN does not


@dataclass(frozen=True)
class Verification:
    """What a vector was, and how its outputs compare."""

    layout: OfficialLayout
    output: Comparison
    # The identity's output against the same model's without taps: equal to the last bit.
    identity: Comparison
    # And against the recorded output of the plain model, where the vector has it.
    plain: Comparison | None

    @property
    def agrees(self) -> bool:
        found = (self.output, self.identity, *([] if self.plain is None else [self.plain]))
        return all(comparison.agrees for comparison in found)


def verify(vector: OfficialVector) -> Verification:
    """Compute a vector's output with our taps and compare it with the recorded one.

    Raises OfficialVectorError where the vector does not fit together, and ImportError without
    diffusers.
    """
    model = make_model(vector)
    try:
        backbone = read_backbone(model)
        second = [tap.index for tap in backbone.taps if tap.branch == "attention2"]
        layout = read_layout(vector.shapes, second if backbone.family == "sd3" else None)
        solutions = [unflatten(layout, vector.coefficients)]
        if vector.identity is not None:
            solutions.append(unflatten(layout, vector.identity))
    except (UnknownBackboneError, OfficialCheckpointError) as error:
        raise OfficialVectorError(f"The vector does not fit together: {error}") from error
    if (layout.family, layout.blocks) != (backbone.family, backbone.blocks):
        raise OfficialVectorError(
            f"The vector's shapes are those of {layout.family} with {_count(layout.blocks)} but "
            f"its config makes {backbone.family} with {_count(backbone.blocks)}: use the file as "
            "it was recorded."
        )
    if vector.mode == "cfg" and layout.members < 2:
        raise OfficialVectorError(
            "The vector has guidance and one member, which guidance needs two of: use the file "
            "as it was recorded."
        )
    caller = _Caller(
        model,
        GainTaps(model, backbone),
        coefficient_space(backbone, layout.granularity),
    )
    outputs = [_run(vector, layout, caller, *solution) for solution in solutions]
    identity = outputs[1] if vector.identity is not None else caller({}, vector.inputs)
    plain = None
    if vector.identity is not None and vector.plain_output is not None:
        plain = _compare(identity, vector.plain_output)
    return Verification(
        layout,
        output=_compare(outputs[0], vector.output),
        identity=Comparison(_largest_difference(identity, call(model, vector.inputs)), 0.0),
        plain=plain,
    )


@dataclass(frozen=True)
class _Caller:
    """A model, called under one member's coefficients."""

    model: nn.Module
    taps: GainTaps
    space: CoefficientSpace

    def __call__(self, member: Member, inputs: Mapping[str, Any]) -> Tensor:
        # Not CoefficientSpace.vector: the official code sets no bounds where it applies a vector.
        coefficients = np.array([member.get(name, 1.0) for name in self.space.names])
        gains = torch.from_numpy(self.space.expand(coefficients[None]))
        with self.taps.scaled(gains):
            return call(self.model, inputs)


def _run(
    vector: OfficialVector,
    layout: OfficialLayout,
    caller: _Caller,
    members: Sequence[Member],
    weights: Sequence[float],
) -> Tensor:
    """The output of the vector's mode, the official code's corner cases included."""
    guided = vector.mode == "cfg"
    if guided:
        members, weights = members[:2], weights[:2]  # those after the second never run
    members, weights = as_run(layout, members, weights, guided)
    if guided:
        cond = caller(members[0], vector.inputs)
        uncond = caller(members[1], vector.unconditional)
        rescale = layout.family == "qwen-image"
        combined = combine_guidance(
            torch.zeros_like(cond), cond, uncond, torch.tensor([weights]), rescale
        )
        if rescale and abs(weights[0]) <= SMALLEST_WEIGHT:
            combined = combined * abs(weights[0])
        return combined
    running = [number for number, weight in enumerate(weights) if weight != 0.0] or [0]
    predictions = [caller(members[number], vector.inputs) for number in running]
    row = torch.tensor([[weights[number] for number in running]])
    return combine(torch.zeros_like(predictions[0]), predictions, row)


def _compare(output: Tensor, recorded: Tensor) -> Comparison:
    if output.shape != recorded.shape:
        raise OfficialVectorError(
            f"The recorded output has shape {tuple(recorded.shape)} but the model gives "
            f"{tuple(output.shape)}: use the files as they were recorded."
        )
    bound = TOLERANCE * float(recorded.double().abs().max())
    return Comparison(_largest_difference(output, recorded), bound)


def _largest_difference(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).abs().max())


def _count(blocks: Mapping[str, int]) -> str:
    return " and ".join(f"{count} {kind} blocks" for kind, count in blocks.items())
