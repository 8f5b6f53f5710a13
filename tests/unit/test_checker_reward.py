"""The checker as a reward: measured, in 0..1, and of the demo's pictures only."""

import numpy as np
import pytest
import torch

from comfyui_calibri.demo.checker_reward import CheckerReward
from comfyui_calibri.demo.prompts import PromptError, generate_prompts, parse
from comfyui_calibri.demo.render import render
from comfyui_calibri.demo.scenes import arrange_scene

PROMPTS = generate_prompts(8, 0, "test")


def pictures(prompts: list[str]) -> torch.Tensor:
    """What the prompts ask for, [B, 64, 64, 3] in 0..1."""
    random = np.random.default_rng(0)
    drawn = [render(arrange_scene(parse(prompt), random)) for prompt in prompts]
    return torch.from_numpy(np.stack(drawn)).float() / 255.0


def test_what_a_prompt_asks_for_has_all_its_facts_and_an_empty_picture_few() -> None:
    reward, images = CheckerReward(), pictures(PROMPTS)
    right = reward.score(images, PROMPTS)
    assert right.shape == (8,)
    assert right.mean() > 0.95
    empty = reward.score(torch.ones_like(images), PROMPTS)
    assert empty.max() < 0.5 <= right.min()
    low, high = reward.card.bounds
    assert low <= float(empty.min()) <= float(right.max()) <= high


def test_others_are_refused_in_a_sentence() -> None:
    reward = CheckerReward()
    with pytest.raises(ValueError, match=r"32 x 64 pixels; it measures .* of 64 x 64"):
        reward.score(torch.ones(1, 64, 32, 3), ["a red circle"])
    with pytest.raises(PromptError, match="'dog'"):
        reward.score(torch.ones(1, 64, 64, 3), ["a dog"])
