"""Names, groups and counts of coefficients, and vectors in their space."""

from __future__ import annotations

import math

import numpy as np
import pytest

from comfyui_calibri.calibri.backbones import Backbone, Tap
from comfyui_calibri.calibri.coefficients import (
    GRANULARITIES,
    CoefficientError,
    CoefficientSpace,
    coefficient_space,
)


def flux(double: int, single: int) -> Backbone:
    taps = [
        Tap("double", i, branch, stream, f"{i}.{stream}", chunk, 6)
        for i in range(double)
        for stream in ("image", "text")
        for branch, chunk in (("attention", 2), ("mlp", 5))
    ]
    taps += [Tap("single", i, "fused", "joint", f"{i}", 2, 3) for i in range(single)]
    return Backbone("flux", {"double": double, "single": single}, tuple(taps))


def sd3(depth: int, dual: int) -> Backbone:
    taps = []
    for i in range(depth):
        image = ("attention", "mlp", "attention2") if i < dual else ("attention", "mlp")
        text = ("attention", "mlp") if i < depth - 1 else ()
        for stream, branches in (("image", image), ("text", text)):
            taps += [
                Tap("joint", i, branch, stream, f"{i}.{stream}", 3 * k + 2, 3 * len(image))
                for k, branch in enumerate(branches)
            ]
    return Backbone("sd3", {"joint": depth}, tuple(taps))


@pytest.fixture
def space() -> CoefficientSpace:
    return coefficient_space(flux(1, 1), "layer")


@pytest.mark.parametrize(
    ("backbone", "counts"),
    [
        # The official code's counts without its ensemble weights (its SD3.5 has gates only).
        pytest.param(flux(19, 38), {"block": 57, "layer": 76, "gate": 114}, id="FLUX.1"),
        pytest.param(sd3(24, 13), {"block": 24, "layer": 61, "gate": 107}, id="SD3.5-medium"),
        pytest.param(sd3(38, 0), {"block": 38, "layer": 76, "gate": 150}, id="SD3.5-large"),
    ],
)
def test_counts(backbone: Backbone, counts: dict[str, int]) -> None:
    found = {g: len(coefficient_space(backbone, g).names) for g in GRANULARITIES}
    assert found == counts


def test_names_and_taps() -> None:
    backbone = flux(1, 1)
    block, layer, gate = (coefficient_space(backbone, g) for g in GRANULARITIES)
    assert block.names == ("double.0", "single.0")
    assert block.tap_index == (0, 0, 0, 0, 1)
    assert layer.names == ("double.0.attention", "double.0.mlp", "single.0.fused")
    assert layer.tap_index == (0, 1, 0, 1, 2)
    assert gate.names == tuple(tap.name for tap in backbone.taps)
    assert gate.tap_index == (0, 1, 2, 3, 4)


def test_second_attention_has_a_layer_of_its_own() -> None:
    space = coefficient_space(sd3(2, 1), "layer")
    assert space.names == (
        "joint.0.attention",
        "joint.0.mlp",
        "joint.0.attention2",
        "joint.1.attention",
        "joint.1.mlp",
    )
    assert space.tap_index == (0, 1, 2, 0, 1, 3, 4)


def test_expand(space: CoefficientSpace) -> None:
    gains = space.expand(np.array([[0.5, 1.5, -1.0], [1.0, 1.0, 1.0]]))
    np.testing.assert_array_equal(gains, [[0.5, 1.5, 0.5, 1.5, -1.0], [1.0] * 5])


@pytest.mark.parametrize("shape", [(3,), (2, 2), (1, 2, 3)])
def test_expand_refuses_other_shapes(space: CoefficientSpace, shape: tuple[int, ...]) -> None:
    with pytest.raises(CoefficientError, match=r"pass an array of shape \(candidates, 3\)"):
        space.expand(np.ones(shape))


def test_identity_and_bounds(space: CoefficientSpace) -> None:
    np.testing.assert_array_equal(space.identity, [1, 1, 1])
    np.testing.assert_array_equal(space.lower, [-1, -1, -1])
    np.testing.assert_array_equal(space.upper, [2, 2, 2])


def test_blend_is_exact_at_both_ends(space: CoefficientSpace) -> None:
    vector = np.array([0.1, 1.0 / 3.0, -0.7])
    np.testing.assert_array_equal(space.blend(vector, 0.0), space.identity)
    np.testing.assert_array_equal(space.blend(vector, 1.0), vector)
    np.testing.assert_allclose(space.blend(vector, 0.5), [0.55, 2.0 / 3.0, 0.15])


def test_named_and_back(space: CoefficientSpace) -> None:
    vector = np.array([0.25, 1.75, -0.5])
    named = space.named(vector)
    assert named == {"double.0.attention": 0.25, "double.0.mlp": 1.75, "single.0.fused": -0.5}
    np.testing.assert_array_equal(space.vector(dict(reversed(named.items()))), vector)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"double.0.mlp": None}, "lacks the coefficient 'double.0.mlp'"),
        (
            {"double.1.mlp": 1.0, "x": 1.0},
            "does not know the coefficient 'double.1.mlp' and 1 more",
        ),
        ({"double.0.mlp": math.nan}, "'double.0.mlp' is nan, outside -1…2"),
        ({"double.0.mlp": 2.01}, "'double.0.mlp' is 2.01, outside -1…2"),
        ({"single.0.fused": -math.inf}, "'single.0.fused' is -inf, outside -1…2"),
    ],
)
def test_vector_refuses(
    space: CoefficientSpace, change: dict[str, float | None], message: str
) -> None:
    named: dict[str, float | None] = {**space.named(space.identity), **change}
    with pytest.raises(CoefficientError, match=message):
        space.vector({name: value for name, value in named.items() if value is not None})


def test_unknown_granularity() -> None:
    with pytest.raises(CoefficientError, match="'head' does not exist: choose one of block, layer"):
        coefficient_space(flux(1, 1), "head")
