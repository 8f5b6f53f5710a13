"""The official code's flat vectors against the structures that it makes of them itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from comfyui_calibri.calibri.official import (
    dead_indices,
    ignored_coefficients,
    read_layout,
    unflatten,
)

SHARED = Path(__file__).parents[3] / "shared" / "vectors"


@pytest.mark.parametrize("file", sorted(SHARED.glob("*.json")), ids=lambda file: file.stem)
def test_the_official_codes_own_structures(file: Path) -> None:
    """Where the recorded vectors lie beside the clone, against the structure written in each."""
    recorded = json.loads(file.read_text())
    layout = read_layout(recorded["shapes"])
    members, weights = unflatten(layout, recorded["coefficients"])
    assert dead_indices(layout) == recorded["dead_coefficient_indices"]
    struct = recorded["struct"]
    assert weights == struct["models_scales"]
    for number, member in enumerate(members):
        named = _named(struct, number, layout.granularity)
        dead = ignored_coefficients(layout)
        assert {n: v for n, v in member.items() if n not in dead} == {
            n: v for n, v in named.items() if n in member and n not in dead
        }


def _named(struct: dict[str, Any], member: int, granularity: str) -> dict[str, float]:
    """The names of a structure's numbers, told apart by its groups."""
    single = {"block": "", "layer": ".fused", "gate": ".fused.joint"}[granularity]
    named = {}
    for i, value in enumerate(struct.get("scales_single", [[]] * 9)[member]):
        named[f"single.{i}{single}"] = value
    pairs = [
        ("scales_double", "double", "image" if granularity == "gate" else ""),
        ("scales_double_ctx", "double", "text"),
        ("scales_main", "joint", "image"),
        ("scales_context", "joint", "text"),
    ]
    for group, kind, stream in pairs:
        for i, value in enumerate(struct.get(group, [[]] * 9)[member]):
            if granularity == "block":
                named[f"{kind}.{i}"] = value
                continue
            for branch, number in zip(("attention", "mlp"), value, strict=True):
                named[f"{kind}.{i}.{branch}.{stream}".rstrip(".")] = number
    for i, value in enumerate(struct.get("scales_attn2", [[]] * 9)[member]):
        named[f"joint.{i}.attention2.image"] = value
    for i, value in enumerate(struct.get("scales_blocks", [[]] * 9)[member]):
        names = ("attention.image", "attention.text", "mlp.image", "mlp.text")
        named |= {f"block.{i}.{n}": v for n, v in zip(names, value, strict=True)}
    return named
