"""The example workflows run in a real ComfyUI from the files that its templates open."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

if TYPE_CHECKING:
    from comfy_client import ComfyClient, PromptResult
    from comfy_server import ComfyServer

WORKFLOWS = sorted((Path(__file__).resolve().parents[2] / "workflows").glob("*.json"))
PICTURES = 8  # of each model
RUN_SECONDS = 240  # of a small calibration on two busy cores
# Files that people have and this server has not; test_workflows_of_big_models.py runs with them.
BIG_FILES = {
    "ae.safetensors",
    "clip_g.safetensors",
    "clip_l.safetensors",
    "flux1-dev.safetensors",
    "qwen_2.5_vl_7b_fp8_scaled.safetensors",
    "qwen_image_fp8_e4m3fn.safetensors",
    "qwen_image_vae.safetensors",
    "sd3.5_medium.safetensors",
    "sd3.5_medium_incl_clips_t5xxlfp8scaled.safetensors",
    "t5xxl_fp16.safetensors",
}

Prompt = dict[str, dict[str, Any]]
each_workflow = pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)


@pytest.mark.oldest
@each_workflow
def test_its_inputs_are_those_that_its_nodes_have(client: ComfyClient, file: Path) -> None:
    nodes = client.get_json("/object_info")
    prompt = client.prompt_from_workflow(file)
    for number, node in prompt.items():
        place = f"{node['class_type']} (node {number})"
        groups = nodes[node["class_type"]]["input"]
        required, optional = groups.get("required") or {}, groups.get("optional") or {}
        assert set(required) <= set(node["inputs"]), place
        assert set(node["inputs"]) <= set(required) | set(optional), place
        for name, value in node["inputs"].items():
            kind = (required.get(name) or optional.get(name))[0]
            if isinstance(value, list):
                origin, slot = value
                given = nodes[prompt[origin]["class_type"]]["output"][slot]
                assert kind == "*" or given in (kind, *kind.split(",")), (place, name)
            elif isinstance(kind, list):
                assert value in kind or value in BIG_FILES, (place, name)


@each_workflow
def test_its_nodes_do_not_lie_on_each_other(file: Path) -> None:
    boxes = list(_boxes(json.loads(file.read_text(encoding="utf-8"))))
    for number, (name, left, top, right, bottom) in enumerate(boxes):
        for other, left2, top2, right2, bottom2 in boxes[number + 1 :]:
            apart = right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top
            assert apart, f"{name} and {other}"


@pytest.mark.slow
def test_generate_shows_plain_and_calibrated_pictures(
    client: ComfyClient, server: ComfyServer
) -> None:
    prompt = client.prompt_from_workflow(_workflow("a quick start"))
    result = client.run(prompt)
    _assert_before_and_after(client, server, prompt, result)


@pytest.mark.slow
def test_calibrate_leaves_a_preset_a_report_and_pictures(
    client: ComfyClient, server: ComfyServer
) -> None:
    prompt = client.prompt_from_workflow(_workflow("- calibrate"))
    # As it stands it takes minutes: the least that still is a whole calibration.
    node = _only(prompt, "CalibriCalibrate")
    prompt[node]["inputs"].update(
        generations=1, bucket_size=2, run_name="workflow", keep_anyway=True
    )
    held_out, _ = prompt[node]["inputs"]["held_out"]
    prompt[held_out]["inputs"]["count"] = 4
    presets = server.models / "calibri"
    before = set(presets.glob("*.safetensors"))  # other tests save theirs here too
    result = client.run(prompt)

    report = _pictures(client, result, _only(prompt, "PreviewImage"))
    assert [picture.shape[1] for picture in report] == [1400]
    run = server.output / "calibri" / "workflow"
    files = {file.name for file in run.iterdir()}
    assert {"preset.safetensors", "report.json", "report.png", "before_after.png"} <= files
    assert (server.folder / "user" / "calibri" / "runs" / "workflow" / "journal.sqlite").is_file()
    numbers = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert len(numbers["generations"]) == 1
    assert [j["name"] for j in numbers["judges"]] == ["demo checker: facts shown", "diversity"]
    (saved,) = set(presets.glob("*.safetensors")) - before
    with safe_open(saved, "numpy") as preset:
        coefficients = preset.get_tensor("coefficients")
    assert coefficients.shape == (1, len(numbers["recommended"]["members"][0]["coefficients"]))
    assert np.isfinite(coefficients).all()
    _assert_before_and_after(client, server, prompt, result, same=(coefficients == 1).all())


@pytest.mark.slow
def test_evaluate_compares_plain_and_calibrated(client: ComfyClient, server: ComfyServer) -> None:
    prompt = client.prompt_from_workflow(_workflow("evaluate a preset"))
    node = _only(prompt, "CalibriEvaluate")
    prompt[node]["inputs"].update(steps="2, 4", max_prompts=4, name="workflow-evaluation")
    result = client.run(prompt)

    shown = _pictures(client, result, node)
    previews = [n for n, entry in prompt.items() if entry["class_type"] == "PreviewImage"]
    for preview, picture in zip(sorted(previews, key=int), shown, strict=True):  # report, grid
        (previewed,) = _pictures(client, result, preview)
        assert np.array_equal(previewed, picture)
        assert picture.std() > 1
    folder = server.output / "calibri" / "workflow-evaluation"
    numbers = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    assert numbers["rewards"] == ["demo reward", "demo checker: facts shown"]
    assert len(numbers["cells"]) == 4
    assert all(cell["diversity"]["mean"] > 0 for cell in numbers["cells"])
    page = (folder / "evaluation.html").read_text(encoding="utf-8")
    assert "demo reward" in page
    assert str(folder / "evaluation.html") in result.outputs[node]["text"][0]


@pytest.mark.slow
def test_in_the_background_pictures_come_at_once_and_the_preset_later(
    client: ComfyClient, server: ComfyServer
) -> None:
    prompt = client.prompt_from_workflow(_workflow("in the background"))
    node = _only(prompt, "CalibriCalibrateBackground")
    name = "workflow-background"
    prompt[node]["inputs"].update(
        generations=1,
        bucket_size=2,
        validate_every=1,
        run_name=name,
        idle_seconds=0.2,
        keep_anyway=True,
    )
    held_out, _ = prompt[node]["inputs"]["held_out"]
    prompt[held_out]["inputs"]["count"] = 4
    result = client.run(prompt)
    _assert_before_and_after(client, server, prompt, result, same=True)

    preset = _wait_until_finished(client, name)["preset"]
    result = client.run(prompt)
    (report,) = _pictures(client, result, _only(prompt, "PreviewImage"))
    assert report.std() > 1
    with safe_open(server.models / "calibri" / preset, "numpy") as saved:
        coefficients = saved.get_tensor("coefficients")
    same = bool((coefficients == 1).all())
    _assert_before_and_after(client, server, prompt, result, same)


def _wait_until_finished(client: ComfyClient, name: str) -> dict[str, Any]:
    """The summary of the run `name` in the background, once it has ended."""
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        run: dict[str, Any] = client.get_json(f"/calibri/runs/{name}")
        if run["state"] == "finished":
            return run
        assert run["state"] in ("running", "waiting"), run["reason"]
        time.sleep(0.2)
    pytest.fail(f"The run {name} was not finished within {RUN_SECONDS} s")


def _assert_before_and_after(
    client: ComfyClient,
    server: ComfyServer,
    prompt: Prompt,
    result: PromptResult,
    same: bool = False,
) -> None:
    """Two sets of pictures, saved as such, that show something and differ by the preset alone."""
    plain, calibrated = (
        _pictures(client, result, node)
        for name in ("plain", "calibrated")
        for node, entry in prompt.items()
        if entry["inputs"].get("filename_prefix") == f"calibri/{name}"
    )
    for pictures in (plain, calibrated):
        assert [picture.shape for picture in pictures] == [(256, 256, 3)] * PICTURES
        assert all(picture.std() > 1 for picture in pictures), "a picture of one colour"
    assert np.array_equal(plain, calibrated) == same
    saved = list((server.output / "calibri").glob("plain_*_.png"))
    assert len(saved) >= PICTURES


def _pictures(client: ComfyClient, result: PromptResult, node: str) -> list[np.ndarray]:
    """What an output node shows, each [H, W, 3]."""
    return [
        np.asarray(Image.open(io.BytesIO(client.image(shown))).convert("RGB"))
        for shown in result.outputs[node]["images"]
    ]


def _workflow(ending: str) -> Path:
    (found,) = (file for file in WORKFLOWS if file.stem.endswith(ending))
    return found


def _only(prompt: Prompt, kind: str) -> str:
    (found,) = (number for number, node in prompt.items() if node["class_type"] == kind)
    return found


def _boxes(workflow: dict[str, Any]) -> Iterator[tuple[str, float, float, float, float]]:
    """(title, left, top, right, bottom) of what a node covers, its title bar included."""
    title = 30
    for node in workflow["nodes"]:
        (left, top), (width, height) = node["pos"], node["size"]
        if node["flags"].get("collapsed"):
            width, height = 100, 0
        yield node.get("title", node["type"]), left, top - title, left + width, top + height
