"""The workflows about several rewards and several members, in a real ComfyUI.

Not on v0.3.64, whose loader knows FLUX at its full width only, so not the demo's model.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from comfy_client import ComfyClient, PromptResult
    from comfy_server import ComfyServer

pytestmark = pytest.mark.slow

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"

Prompt = dict[str, dict[str, Any]]


def small_prompt(client: ComfyClient, name: str, run_name: str) -> Prompt:
    """The workflow's prompt with the least that still is a whole calibration."""
    prompt = client.prompt_from_workflow(WORKFLOWS / f"Calibri - {name}.json")
    for node in prompt.values():
        if node["class_type"] == "CalibriCalibrate":
            node["inputs"].update(generations=1, bucket_size=2, run_name=run_name, keep_anyway=True)
        if node["class_type"] == "CalibriPromptSet" and node["inputs"]["split"] == "test":
            node["inputs"]["count"] = 4
    return prompt


def test_parts_of_a_reward_judge_it_apart(client: ComfyClient, server: ComfyServer) -> None:
    prompt = small_prompt(client, "several rewards", "workflow-rewards")
    result = client.run(prompt)
    floor, total = (_scores(result, prompt, f"Scores of the {name}") for name in ("floor", "sum"))
    assert len(floor) == len(total) == 16
    assert floor != total
    report = json.loads(
        (server.output / "calibri" / "workflow-rewards" / "report.json").read_text(encoding="utf-8")
    )
    judges = [judge["name"] for judge in report["judges"]]
    assert judges == ["demo reward", "demo checker: facts shown", "diversity"]


def test_two_members_begin_at_the_preset_and_are_saved(
    client: ComfyClient, server: ComfyServer
) -> None:
    prompt = small_prompt(client, "ensemble", "workflow-ensemble")
    result = client.run(prompt)
    plain, one, two = (
        _pictures(client, result, prompt, title) for title in ("Plain", "One member", "Two members")
    )
    assert plain.shape == one.shape == two.shape == (8, 256, 256, 3)
    assert not np.array_equal(plain, one)
    assert not np.array_equal(plain, two)
    report = json.loads(
        (server.output / "calibri" / "workflow-ensemble" / "report.json").read_text(
            encoding="utf-8"
        )
    )
    assert len(report["recommended"]["members"]) in (1, 2)  # 1: the preset it began at
    assert list((server.models / "calibri").glob("demo-ensemble_*.safetensors"))


def _titled(prompt: Prompt, title: str) -> str:
    (found,) = (number for number, node in prompt.items() if node["_meta"]["title"] == title)
    return found


def _scores(result: PromptResult, prompt: Prompt, title: str) -> list[str]:
    (text,) = result.outputs[_titled(prompt, title)]["text"]
    return [line.split(": ")[1] for line in str(text).splitlines()[1:]]


def _pictures(client: ComfyClient, result: PromptResult, prompt: Prompt, title: str) -> np.ndarray:
    """What an output node shows: [pictures, H, W, 3]."""
    shown = result.outputs[_titled(prompt, title)]["images"]
    return np.stack(
        [np.asarray(Image.open(io.BytesIO(client.image(s))).convert("RGB")) for s in shown]
    )
