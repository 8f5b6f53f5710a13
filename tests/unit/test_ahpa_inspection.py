"""What a router is said to weigh, what groups of levels look like, and what a probe reads."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from comfyui_calibri.ahpa.figure_inspection import draw_alignment, draw_features, draw_router
from comfyui_calibri.ahpa.group_pictures import principal_colours, read_groups
from comfyui_calibri.ahpa.inspection import weighing
from comfyui_calibri.ahpa.levels import chosen_levels, read_levels
from comfyui_calibri.ahpa.probe import (
    TOKENS,
    Readout,
    probed_times,
    probed_tokens,
    read_out,
)
from comfyui_calibri.ahpa.router import HandSetRouter, StaticRouter
from comfyui_calibri.ahpa.router_file import TrainedRouter
from comfyui_calibri.demo.autoencoder import Autoencoder

from .ahpa_subject import LEVELS


def trained(router: nn.Module) -> TrainedRouter:
    return TrainedRouter("ahpa", LEVELS, 8, router, {})


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_schedule_by_hand_is_read_back_from_it() -> None:
    found = weighing(trained(HandSetRouter(LEVELS)), 11)  # deep has the share t, two levels alike
    assert found.groups == ("middle", "deep")
    assert torch.allclose(found.beta("deep"), found.times)
    assert torch.allclose(found.alpha("deep")[1:], torch.full((10, 2), 0.5))
    assert found.entropy[0] == pytest.approx(0, abs=1e-6)  # one level alone
    assert found.entropy[-1] == pytest.approx(math.log(2), abs=1e-6)
    assert found.variation > 0.1
    assert found.words().startswith("At full noise (t = 1): middle 0%, deep 100%; at none (t = 0)")
    told = json.loads(json.dumps(found.record()))
    assert told["beta"]["deep"] == pytest.approx(told["t"])
    assert list(told["alpha"]) == ["a", "b", "c"]


def test_a_mix_that_never_changes_has_no_variation() -> None:
    found = weighing(trained(StaticRouter(LEVELS)))
    assert found.variation == pytest.approx(0, abs=1e-6)
    assert "decides 0.000 nats" in found.words()


def test_a_probe_reads_what_is_in_the_tokens_and_only_that() -> None:
    pictures, count, width = 12, 16, 5
    features = normal(pictures, 2, count, width)  # two levels
    hidden = features[:, 0] @ normal(width, 20, seed=1) + 3  # tokens made of the first alone
    found = read_out(hidden, features)
    assert found[0] > 0.99
    assert abs(found[1]) < 0.15


def test_a_probe_is_judged_on_pictures_it_was_not_fitted_to() -> None:
    features = normal(6, 1, 3, 4)
    more_channels_than_tokens = normal(6, 3, 200, seed=1)
    assert abs(read_out(more_channels_than_tokens, features)[0]) < 0.5
    with pytest.raises(ValueError, match="There are 3 pictures"):
        read_out(more_channels_than_tokens[:3], features[:3])


def test_tokens_and_times_are_spread_evenly() -> None:
    assert probed_times(4) == (0.125, 0.375, 0.625, 0.875)
    assert probed_tokens(16, 4).tolist() == list(range(16))
    few = probed_tokens(4096, 32)
    assert len(few) * 32 == TOKENS
    assert few[1] - few[0] == 32


def test_colours_are_the_same_for_equal_features_and_follow_the_variance() -> None:
    strong, weak = normal(1, 50, 1), normal(1, 50, 1, seed=1)
    levels = [torch.cat([10 * strong, weak], dim=-1), normal(1, 50, 3, seed=2)]
    colours, explained = principal_colours(levels)
    again, _ = principal_colours([level.clone() for level in levels])
    assert torch.equal(colours, again)
    assert colours.shape == (1, 50, 3)
    assert 0 <= colours.min() <= colours.max() <= 1
    assert 0.5 < explained < 1
    # Each level has the same say, however large its numbers are.
    scaled, _ = principal_colours([levels[0] * 1000, levels[1]])
    assert torch.allclose(scaled, colours, atol=1e-4)
    correlation = np.corrcoef(colours[0, :, 0], strong[0, :, 0])[0, 1]
    assert correlation > 0.8
    with pytest.raises(ValueError, match="more and varied pictures"):
        principal_colours([torch.ones(1, 4, 3)])


def test_groups_are_seen_at_the_resolution_of_their_stage() -> None:
    torch.manual_seed(0)
    autoencoder = Autoencoder().eval()
    encoder = autoencoder.taesd_encoder
    pictures = [torch.rand(1, 3, 64, 64) for _ in range(2)]
    groups = list(
        read_groups(encoder, read_levels(encoder), autoencoder.encode, pictures, (64, 64))
    )
    assert [(g.group, g.pictures.shape) for g in groups] == [
        ("shallow", (2, 32, 32, 3)),
        ("middle", (2, 16, 16, 3)),
        ("deep", (2, 8, 8, 3)),
    ]
    assert all(0 < group.explained <= 1 for group in groups)
    assert json.loads(json.dumps(groups[1].record()))["levels"] == ["7", "8", "9"]
    shown = np.concatenate([picture.numpy() for picture in pictures]).transpose(0, 2, 3, 1)
    assert draw_features(shown, groups).shape == (600, 410, 3)
    deep = chosen_levels(read_levels(encoder), "13")
    assert len(list(read_groups(encoder, deep, autoencoder.encode, pictures, (64, 64)))) == 1


def test_what_is_drawn_is_a_picture_of_the_said_size() -> None:
    assert draw_router(trained(HandSetRouter(LEVELS))).shape == (640, 900, 3)
    assert draw_router(None).shape == (640, 900, 3)
    cosines = np.linspace(0, 1, 6).reshape(2, 3)
    found = Readout("double.0", LEVELS, probed_times(2), 4, cosines)
    assert draw_alignment(found).shape == (480, 900, 3)
    assert found.record()["cosine"]["c"] == [0.4, 1.0]
