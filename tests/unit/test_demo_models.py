"""The demo's networks, their training loop and their reward."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from comfyui_calibri.demo.autoencoder import Autoencoder, fold_normalisation
from comfyui_calibri.demo.model import Flux, FluxConfig
from comfyui_calibri.demo.prompts import PromptError, generate_prompts
from comfyui_calibri.demo.reward import DemoReward, Detector
from comfyui_calibri.demo.text_encoder import BOS, EOS, LENGTH, PAD, TextEncoder, token_rows
from comfyui_calibri.demo.train_dit import LatentCache, flow_matching_batch
from comfyui_calibri.demo.training import Recipe, train

PROMPTS = ["a red circle", "two small blue stars", "a cross above a ring", "a red circle"]


def test_an_untrained_dit_predicts_nothing_and_keeps_the_shape() -> None:
    model = Flux(FluxConfig(double_blocks=1, single_blocks=1))
    model.start_as_identity()
    x, (context, pooled) = torch.randn(2, 16, 8, 8), TextEncoder()(token_rows(PROMPTS[:2]))
    out = model(x, torch.rand(2), context, pooled)
    assert out.shape == x.shape
    assert not out.any()


def test_rows_of_a_batch_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    model, text = Flux(FluxConfig(double_blocks=1, single_blocks=1)), TextEncoder()
    x, t = torch.randn(3, 16, 8, 8), torch.rand(3)
    context, pooled = text(token_rows(PROMPTS[:3]))
    together = model(x, t, context, pooled)
    alone = model(x[1:2], t[1:2], context[1:2], pooled[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_token_rows_begin_end_and_pad() -> None:
    rows = token_rows(["", "a red circle"])
    assert rows.shape == (2, LENGTH)
    assert rows[0].tolist() == [BOS, EOS] + [PAD] * (LENGTH - 2)
    assert rows[1, 0] == BOS
    assert rows[1, 4] == EOS


def test_folding_the_normalisation_changes_no_latent() -> None:
    torch.manual_seed(0)
    autoencoder, norm = Autoencoder(), nn.BatchNorm2d(16, affine=False)
    pictures = torch.rand(4, 3, 64, 64)
    norm(3 * autoencoder.encode(pictures) + 1)
    norm.eval()
    with torch.no_grad():
        expected = norm(autoencoder.encode(pictures))
        fold_normalisation(autoencoder, norm)
        torch.testing.assert_close(autoencoder.encode(pictures), expected, rtol=1e-4, atol=1e-4)


def test_the_noise_levels_of_a_batch_are_spread_and_repeat() -> None:
    cache = LatentCache(token_rows(PROMPTS), torch.randn(4, 16, 8, 8).half())
    x, t, tokens, velocity = flow_matching_batch(cache, 0, 3, 64)
    assert t.min() < 0.15
    assert t.max() > 0.85
    again = flow_matching_batch(cache, 0, 3, 64)
    assert all(torch.equal(a, b) for a, b in zip((x, t, tokens, velocity), again, strict=True))
    # x = (1 - t) latent + t noise and v = noise - latent, so x - t v is the latent.
    latents = x - t[:, None, None, None] * velocity
    nearest = torch.cdist(latents.flatten(1), cache.latents.float().flatten(1)).min(dim=1).values
    assert nearest.max() < 1e-3


def _train(folder: Path, steps: int, stop_at: int | None = None) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def loss(step: int) -> torch.Tensor:
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        out: torch.Tensor = (model(x) - x.sum(1, keepdim=True)).square().mean()
        return out

    recipe = Recipe(steps=steps, batch=16, learning_rate=1e-2, warm_up=3)
    train("toy", model, loss, recipe, folder, save_every=5, log=lambda _: None)
    return model.state_dict()


def test_training_that_was_interrupted_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = _train(tmp_path / "whole", 20)
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "cut", 20, stop_at=12)
    resumed = _train(tmp_path / "cut", 20)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@pytest.fixture(scope="module")
def reward() -> DemoReward:
    torch.manual_seed(0)
    return DemoReward(Detector())


def test_a_rows_reward_depends_on_that_row_alone(reward: DemoReward) -> None:
    torch.manual_seed(1)
    images = torch.rand(4, 64, 64, 3)
    together = reward.score(images, PROMPTS)
    alone = torch.cat([reward.score(images[i : i + 1], PROMPTS[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert together.max() < 0


def test_the_reward_is_differentiable_in_the_pixels(reward: DemoReward) -> None:
    images = torch.rand(4, 64, 64, 3, requires_grad=True)
    reward.score(images, PROMPTS).sum().backward()
    assert images.grad is not None
    assert bool(images.grad.flatten(1).abs().sum(1).gt(0).all())


def test_the_reward_takes_larger_pictures_and_refuses_what_it_cannot_judge(
    reward: DemoReward,
) -> None:
    images = torch.rand(1, 64, 64, 3)
    larger = images.repeat_interleave(2, 1).repeat_interleave(2, 2)
    torch.testing.assert_close(
        reward.score(larger, PROMPTS[:1]), reward.score(images, PROMPTS[:1]), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(PromptError, match="'dog'"):
        reward.score(images, ["a dog"])
    with pytest.raises(ValueError, match="1 images and 2 prompts"):
        reward.score(images, PROMPTS[:2])


def test_the_reward_reads_every_generated_prompt(reward: DemoReward) -> None:
    prompts = generate_prompts(50, 0, "train")
    scores = reward.score(torch.rand(50, 64, 64, 3), prompts)
    assert np.isfinite(scores.numpy()).all()
