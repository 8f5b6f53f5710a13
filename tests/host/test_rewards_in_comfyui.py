"""Rewards in a running ComfyUI: scored, picked and combined as a page would queue them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from comfy_client import PromptError

if TYPE_CHECKING:
    from comfy_client import ComfyClient

pytestmark = pytest.mark.oldest

PROMPT = "a small red circle on a white background"


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def white_and_black() -> dict[str, Any]:
    """Node 3: a batch of a black and a white picture; node 4: the demo's reward."""
    size = {"width": 64, "height": 64, "batch_size": 1}
    return {
        "1": node("EmptyImage", **size, color=0x000000),
        "2": node("EmptyImage", **size, color=0xFFFFFF),
        "3": node("ImageBatch", image1=["1", 0], image2=["2", 0]),
        "4": node("CalibriDemoReward"),
    }


def test_images_are_scored_and_the_best_is_kept(client: ComfyClient) -> None:
    prompt = white_and_black()
    shared = {"images": ["3", 0], "reward": ["4", 0], "prompt": PROMPT}
    prompt["5"] = node("CalibriScoreImages", **shared)
    prompt["6"] = node("CalibriPickBest", **shared, count=1)
    prompt["7"] = node("SaveImage", images=["6", 0], filename_prefix="rewards/best")
    result = client.run(prompt)
    lines = result.outputs["5"]["text"][0].splitlines()
    assert lines[0].startswith("demo reward: mean -")
    black, white = (float(line.split(": ")[1]) for line in lines[1:])
    assert black != white
    (shown,) = result.outputs["7"]["images"]
    pixel = Image.open(io.BytesIO(client.image(shown))).convert("L").getpixel((0, 0))
    assert pixel == (255 if white > black else 0)


def test_a_combined_reward_scores_the_plain_images_zero_on_average(client: ComfyClient) -> None:
    prompt = white_and_black()
    plain = {"images": ["3", 0], "prompt": PROMPT}
    weights = {f"weight_{i}": 1.0 for i in range(1, 5)}
    prompt["5"] = node("CalibriCombineRewards", **plain, **weights, reward_1=["4", 0])
    floor = {"strength": 2.0, "tolerance": 5.0}
    prompt["6"] = node("CalibriRewardFloor", **plain, **floor, reward=["5", 0], guard=["4", 0])
    prompt["7"] = node("CalibriScoreImages", **plain, reward=["6", 0])
    head = client.run(prompt).outputs["7"]["text"][0].splitlines()[0]
    assert head.startswith("+1 demo reward (")
    assert abs(float(head.split("mean ")[1].split(" of")[0])) < 0.05


def test_a_missing_reward_says_where_to_get_it(client: ComfyClient) -> None:
    prompt = white_and_black()
    prompt["4"] = node("CalibriLoadReward", reward="PickScore", file="auto", clip="auto")
    prompt["5"] = node("CalibriScoreImages", images=["3", 0], reward=["4", 0], prompt=PROMPT)
    with pytest.raises(PromptError, match=r"PickScore needs PickScore_v1/model\.safetensors in .*"):
        client.run(prompt)
