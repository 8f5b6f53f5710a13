"""What a preset says of how it was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from comfyui_calibri.calibri.preset_metadata import (
    HeldOut,
    MetadataError,
    held_out,
    preset_from_json,
    preset_to_json,
)
from comfyui_calibri.calibri.presets import (
    Guidance,
    Member,
    Preset,
    RewardChange,
    changes_nothing,
    load_preset,
    save_preset,
)

COLLAPSED = RewardChange("diversity", 0.2, 0.1, -0.15, -0.05, 16, False)
PRESET = Preset(
    "flux",
    {"double": 1},
    "block",
    (Member({"double.0": 1.5}),),
    rewards=(RewardChange("Demo Reward", -0.5, -0.4, 0.05, 0.15, 64, True),),
    prompts=held_out(["a dog", "größer"]),
    diversity=COLLAPSED,
)


def test_it_comes_back(tmp_path: Path) -> None:
    save_preset(tmp_path / "a.safetensors", PRESET)
    assert load_preset(tmp_path / "a.safetensors") == PRESET
    assert (COLLAPSED.fell, COLLAPSED.rose) == (True, False)


def test_prompts_are_told_apart_and_not_told(tmp_path: Path) -> None:
    assert PRESET.prompts == HeldOut(2, held_out(["a dog", "größer"]).digest)
    assert held_out(["a dog", "größer"]) != held_out(["größer", "a dog"])
    save_preset(tmp_path / "a.safetensors", PRESET)
    assert b"dog" not in (tmp_path / "a.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"diversity": []}, "rewards must be of type dict"),
        ({"prompts": {"count": 3}}, "prompts lacks 'digest'"),
        ({"prompts": {"count": "3", "digest": ""}}, r"prompts\.count must be of type int"),
        ({"prompts": {"count": 3, "digest": "x" * 1001}}, "longer than 1000"),
    ],
)
def test_wrong_metadata(changes: dict[str, Any], problem: str) -> None:
    text = json.dumps(json.loads(preset_to_json(PRESET)) | changes)
    with pytest.raises(MetadataError, match=problem):
        preset_from_json(text, np.ones((1, 1), np.float32), np.ones(1, np.float32))


@pytest.mark.parametrize(
    ("members", "guidance", "nothing"),
    [
        ([(1.0, 1.0)], None, True),
        ([(1.0, 0.9)], None, False),
        ([(1.1, 1.0)], None, False),
        ([(1.0, 0.25), (1.0, 0.75)], None, True),
        ([(1.0, 4.0), (1.0, -3.0)], Guidance(4.0), True),
        ([(1.0, 4.5), (1.0, -3.5)], Guidance(4.0), False),
    ],
)
def test_a_preset_that_changes_nothing_is_known(
    members: list[tuple[float, float]], guidance: Guidance | None, nothing: bool
) -> None:
    found = tuple(Member({"double.0": value}, weight) for value, weight in members)
    preset = Preset("flux", {"double": 1}, "block", found, guidance)
    assert changes_nothing(preset) == nothing
