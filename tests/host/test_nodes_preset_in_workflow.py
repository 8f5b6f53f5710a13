"""A preset within the workflow is the preset of its file."""

from __future__ import annotations

from dataclasses import replace

import pytest

from comfyui_calibri.calibri.preset_text import write_preset_text
from comfyui_calibri.calibri.presets import load_preset
from comfyui_calibri.nodes.folders import DEMO_WEIGHTS
from comfyui_calibri.nodes.preset_in_workflow import CalibriPresetInWorkflow

pytestmark = pytest.mark.oldest

DEMO = DEMO_WEIGHTS / "calibri" / "calibri-demo.safetensors"


def test_it_gives_the_preset_that_its_text_was_made_of() -> None:
    preset = replace(load_preset(DEMO), thumbnail=b"")  # its picture is not in a text
    text = write_preset_text(preset)
    assert CalibriPresetInWorkflow.validate_inputs(text) is True
    assert CalibriPresetInWorkflow.execute(text).args[0] == preset


def test_what_is_no_preset_is_refused_before_the_run() -> None:
    assert CalibriPresetInWorkflow.validate_inputs(None) is True
    for text in ("", "double.0=0.8", write_preset_text(load_preset(DEMO))[:-40]):
        said = CalibriPresetInWorkflow.validate_inputs(text)
        assert isinstance(said, str)
        assert said.startswith("text: ")
