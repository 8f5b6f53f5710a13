"""Our rewards equal the original packages: checkpoint keys, preprocessing, score and gradient.

The originals' numbers are recordings, made by `experiments/record_rewards.py` with the packages
themselves in an environment of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from comfyui_calibri.rewards.aesthetic import Aesthetic
from comfyui_calibri.rewards.clip_rewards import CLIPScore, HPSv2, PickScore
from comfyui_calibri.rewards.imagereward import ImageReward
from comfyui_calibri.rewards.pixels import CLIP_STD
from comfyui_calibri.rewards.protocol import NetworkReward
from comfyui_location import find_comfyui

from .. import reward_originals as small

pytestmark = pytest.mark.oldest

RECORDED = small.recordings()


def write(path: Path, weights: dict[str, Tensor], layout: str) -> Path:
    """`weights` as published: the tensors alone, or inside what training saved."""
    if layout == "safetensors":
        path = path.with_suffix(".safetensors")
        save_file(weights, path)
    elif layout == "state_dict":
        path = path.with_suffix(".pt")
        torch.save({"epoch": 1, "state_dict": weights}, path)
    else:
        path = path.with_suffix(".pt")
        torch.save(weights, path)
    return path


def load(name: str, folder: Path, layout: str) -> NetworkReward:
    """The reward from files that hold the original's tensors."""
    entry = RECORDED[name]
    file = write(folder / "weights", small.tensors(entry["shapes"]), layout)
    if name == "ImageReward":
        return ImageReward.load(file, small.bert_vocabulary(folder / "vocab.txt"))
    if name == "LAION aesthetic":
        clip = write(folder / "ViT-L-14", small.tensors(entry["clip"]), layout)
        return Aesthetic.load(file, clip)
    comfyui = find_comfyui()
    assert comfyui is not None
    vocabulary = comfyui / "comfy" / "sd1_tokenizer"
    if name == "PickScore":
        return PickScore.load(file, vocabulary)
    if name == "HPSv2":
        return HPSv2.load("HPSv2", file, vocabulary)
    return CLIPScore.load(file, vocabulary)


def picture(size: tuple[int, int]) -> Tensor:
    return torch.from_numpy(small.picture(*size)).float()[None] / 255.0


@pytest.fixture(scope="module", params=RECORDED)
def loaded(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, NetworkReward]:
    layout = "state_dict" if request.param == "HPSv2" else "tensors"
    return request.param, load(request.param, tmp_path_factory.mktemp("reward"), layout)


def test_scores_equal_the_originals_for_pictures_of_any_size(
    loaded: tuple[str, NetworkReward],
) -> None:
    name, reward = loaded
    expected = torch.tensor(RECORDED[name]["scores"])
    assert expected.std() > 0.01
    found = torch.cat(
        [
            reward.score(picture(size), [prompt])
            for prompt, size in zip(small.PROMPTS, small.SIZES, strict=True)
        ]
    )
    scale = expected.abs().max().clamp(min=1.0)
    assert (found - expected).abs().max() / scale <= 1e-6


def test_gradients_equal_the_originals(loaded: tuple[str, NetworkReward]) -> None:
    name, reward = loaded
    images = picture(small.SIZES[0]).requires_grad_()
    score = reward.score(images, small.PROMPTS[:1])
    score.sum().backward()
    assert images.grad is not None
    # The original's gradient is by normalised pixels.
    found = (images.grad[0] * torch.tensor(CLIP_STD)).permute(2, 0, 1)[:, ::5, ::5]
    expected = torch.tensor(RECORDED[name]["gradient"])
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=float(expected.abs().max()) * 1e-5)
    assert not any(parameter.requires_grad for parameter in reward.network.parameters())


def test_a_score_is_the_same_whether_or_not_its_gradient_is_asked_for(
    loaded: tuple[str, NetworkReward],
) -> None:
    _, reward = loaded
    images = picture((61, 47))
    plain = reward.score(images, small.PROMPTS[:1])
    images.requires_grad_()
    score = reward.score(images, small.PROMPTS[:1])
    torch.testing.assert_close(score.detach(), plain, rtol=0, atol=1e-6)
    score.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_a_rows_score_depends_on_that_row_alone(loaded: tuple[str, NetworkReward]) -> None:
    _, reward = loaded
    images = torch.cat([picture((40, 40)), picture((40, 40)).flip(1), picture((40, 40)).flip(2)])
    prompts = [small.PROMPTS[4], small.PROMPTS[0], small.PROMPTS[2]]
    together = reward.score(images, prompts)
    alone = [reward.score(images[i : i + 1], prompts[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", RECORDED)
def test_safetensors_hold_the_same_reward(name: str, tmp_path: Path) -> None:
    reward = load(name, tmp_path, "safetensors")
    score = reward.score(picture(small.SIZES[0]), small.PROMPTS[:1])
    scale = max(1.0, abs(RECORDED[name]["scores"][0]))
    assert abs(score.item() - RECORDED[name]["scores"][0]) / scale <= 1e-6
