"""The Calibrate node where it chooses the bucket size and begins at a sibling model's preset."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from comfyui_calibri.calibri.journal import Journal
from comfyui_calibri.calibri.presets import Member, Preset
from comfyui_calibri.nodes import calibration_run
from comfyui_calibri.nodes.background.node import CalibriCalibrateBackground
from comfyui_calibri.nodes.calibrate import CalibriCalibrate
from comfyui_calibri.nodes.patching import backbone_of

from .test_nodes_ensemble import make_preset
from .tiny_fixtures import inference  # noqa: F401
from .tiny_inputs import calibration_inputs

pytestmark = [pytest.mark.oldest, pytest.mark.usefixtures("output")]


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    """Three generations, whose first two are the pilot."""
    with torch.inference_mode():
        return {
            **calibration_inputs(tmp_path, "sd3"),
            "steps": 1,
            "granularity": "gate",
            "generations": 3,
            "bucket_size": 0,
            "validate_every": 5,
            "stop_early": True,
        }


def shorter(preset: Preset) -> Preset:
    """The preset as if its model had one block less."""
    (kind,) = preset.blocks
    count = preset.blocks[kind] - 1
    (member,) = preset.members
    kept = {n: v for n, v in member.coefficients.items() if int(n.split(".")[1]) < count}
    return replace(preset, title="small", blocks={kind: count}, members=(Member(kept),))


def test_widgets_that_came_later_are_the_last() -> None:
    """A saved workflow gives its values by their place."""
    background = [given.id for given in CalibriCalibrateBackground.define_schema().inputs]
    calibrate = [given.id for given in CalibriCalibrate.define_schema().inputs]
    later = ["settings", "stop_early", "keep_anyway"]
    assert calibrate[-3:] == later
    assert background == [
        *calibrate[:-3],
        *("idle_seconds", "slice_seconds", "if_changed"),
        *later,
    ]


def test_it_chooses_the_bucket_size_and_says_what_it_expects_and_began_at(
    inputs: dict[str, Any], output: Path
) -> None:
    said: list[str] = []
    preset = shorter(make_preset(inputs["model"], [1.0], seed=1))
    (kind,) = backbone_of(inputs["model"]).blocks
    result = calibration_run.run_calibration(say=said.append, start_from=preset, **inputs)
    assert result.text.endswith(said[0])  # what it began at, before anything is drawn
    with Journal.read(output / "calibri" / "runs" / "trial" / "journal.sqlite") as journal:
        sizes = [len(e.bucket) for e in journal.evaluations("generation")]
    assert sizes[:2] == [16, 16]
    assert sizes[2] in (4, 8, 16, 32, 64)
    first, second, third = (text for text in said if text.startswith("Generation"))
    assert "images at most" not in first
    for text in (second, third):
        assert f"{sizes[2]} images for each candidate" in text
    pilot = json.loads((output / "calibri" / "trial" / "report.json").read_text())["pilot"]
    assert pilot["bucket_size"] == sizes[2]
    assert pilot["sentence"] in third
    assert (
        f"preset 'small' of a sibling model, sd3 with {preset.blocks[kind]} {kind}" in result.text
    )
    assert "by relative depth" in result.text
