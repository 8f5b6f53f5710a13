"""Reward from Workflow in a running ComfyUI, on its own and inside a calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from comfy_client import PromptError

if TYPE_CHECKING:
    from comfy_client import ComfyClient

pytestmark = pytest.mark.oldest

PROMPT = "a small red circle on a white background"
INNER = {"10", "11", "13"}


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def reward_nodes(**tried: Any) -> dict[str, Any]:
    """12: a reward of nodes that turn a picture over and ask the demo's reward; 13 shows it."""
    return {
        "9": node("CalibriDemoReward"),
        "10": node("CalibriRewardInput", prompt="", **tried),
        "11": node("ImageInvert", image=["10", 0]),
        "13": node("CalibriScoreImages", images=["11", 0], reward=["9", 0], prompt=["10", 1]),
        "12": node("CalibriWorkflowReward", score=["13", 0], name="inverted"),
    }


def pictures() -> dict[str, Any]:
    size = {"width": 64, "height": 64, "batch_size": 1}
    return {
        "1": node("EmptyImage", **size, color=0x000000),
        "2": node("EmptyImage", **size, color=0xFFFFFF),
        "3": node("ImageBatch", image1=["1", 0], image2=["2", 0]),
    }


def listed(text: str) -> list[float]:
    return [float(line.split(": ")[1]) for line in text.splitlines()[1:]]


def test_it_scores_as_its_nodes_do_and_runs_them_only_when_asked(client: ComfyClient) -> None:
    prompt = {**pictures(), **reward_nodes()}
    shared = {"images": ["3", 0], "prompt": PROMPT}
    prompt["5"] = node("CalibriScoreImages", **shared, reward=["9", 0])
    prompt["6"] = node("CalibriScoreImages", **shared, reward=["12", 0])
    prompt["14"] = node("PreviewImage", images=["11", 0])
    events: list[tuple[str, dict[str, Any]]] = []
    result = client.run(prompt, lambda kind, data: events.append((kind, data)))
    black, white = listed(result.outputs["5"]["text"][0])
    assert listed(result.outputs["6"]["text"][0]) == [white, black]
    assert result.outputs["6"]["text"][0].startswith("inverted (workflow ")
    # The nodes inside rest in the user's own prompt: what they show is left out.
    assert not {"13", "14"} & set(result.outputs)
    # Only what runs in the prompt is shown as running.
    while_scoring = [data["node"] for kind, data in events if kind == "progress"]
    assert not INNER & set(while_scoring)


def test_its_nodes_can_be_tried_on_an_image(client: ComfyClient) -> None:
    prompt = {**pictures(), **reward_nodes(image=["3", 0])}
    prompt["10"]["inputs"]["prompt"] = PROMPT
    prompt["14"] = node("PreviewImage", images=["11", 0])
    result = client.run(prompt)
    assert len(result.outputs["14"]["images"]) == 2
    assert len(result.outputs["13"]["text"]) == 2


def test_a_node_that_fails_is_named(client: ComfyClient) -> None:
    prompt = {**pictures(), **reward_nodes()}
    prompt["6"] = node(
        "CalibriScoreImages", images=["3", 0], prompt="an elephant", reward=["12", 0]
    )
    sentence = r"inverted \(workflow \w+\): its node CalibriScoreImages \(node 13\) failed: .*eleph"
    with pytest.raises(PromptError, match=sentence):
        client.run(prompt)
    prompt["6"]["inputs"]["prompt"] = PROMPT
    assert client.run(prompt).outputs["6"]["text"]


def test_a_calibration_runs_on_it(client: ComfyClient, newest: bool) -> None:
    if not newest:
        pytest.skip("v0.3.64 loads FLUX at its full width only, so not the demo's model")
    prompt = reward_nodes()
    prompts = {"source": "demo", "text": "", "file": "none"}
    prompt |= {
        "1": node("UNETLoader", unet_name="calibri-demo-dit.safetensors", weight_dtype="default"),
        "2": node(
            "CalibriLoadDemoTextEncoder", text_encoder="calibri-demo-text-encoder.safetensors"
        ),
        "3": node("VAELoader", vae_name="calibri-demo-vae.safetensors"),
        "4": node("CalibriPromptSet", **prompts, count=8, seed=1, split="train"),
        "5": node(
            "CalibriCalibrate",
            model=["1", 0], clip=["2", 0], vae=["3", 0], prompts=["4", 0], reward=["12", 0],
            negative="", sampler="euler", scheduler="simple", steps=1, cfg=1.0, guidance=0.0,
            width=64, height=64, granularity="block", profile="default", generations=1, seed=0,
            run_name="by-workflow", bucket_size=1, validate_every=1,
        ),
    }  # fmt: skip
    told = client.run(prompt).outputs["5"]["text"][0]
    assert "inverted (workflow " in told
