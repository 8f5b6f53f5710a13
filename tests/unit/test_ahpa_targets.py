"""Features to align to: of the demo's VAE, cached; of latents; of an image encoder's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from comfyui_calibri.ahpa.feature_cache import CacheKey
from comfyui_calibri.ahpa.features import FeatureReader
from comfyui_calibri.ahpa.levels import chosen_levels, read_levels
from comfyui_calibri.ahpa.targets import (
    cached_levels,
    encoder_mark,
    latent_features,
    spread,
    vision_features,
    whitened,
)
from comfyui_calibri.demo.autoencoder import Autoencoder

COUNT, WIDTH, GRID = 5, 8, (4, 4)


@pytest.fixture(scope="module")
def autoencoder() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder().eval()


def test_levels_of_a_vae_are_whitened_and_read_back_row_by_row(
    autoencoder: Autoencoder, tmp_path: Path
) -> None:
    encoder = autoencoder.taesd_encoder
    levels = chosen_levels(read_levels(encoder), "7, 13")
    reader = FeatureReader(encoder, levels, autoencoder.encode)
    pictures = torch.rand(COUNT, 3, 64, 64)
    key = CacheKey(
        encoder_mark(encoder, levels),
        tuple(str(i) for i in range(COUNT)),
        tuple(level.module for level in levels),
        GRID,
        WIDTH,
    )
    asked: list[int] = []

    def read(numbers: Sequence[int]) -> Tensor:
        asked.extend(numbers)
        return pictures[list(numbers)]

    cache = cached_levels(tmp_path, key, reader, read, batch=2)
    found = cache[torch.arange(COUNT)]
    assert found.shape == (COUNT, 2, 16, WIDTH)
    flat = found.transpose(1, 2).flatten(0, 1)  # [tokens of all, level, width]
    assert torch.allclose(flat.mean(0), torch.zeros(2, WIDTH), atol=0.02)
    for level in range(2):
        covariance = flat[:, level].T @ flat[:, level] / len(flat)
        assert torch.allclose(covariance, torch.eye(WIDTH), atol=0.05)
    asked.clear()
    again = cached_levels(tmp_path, key, reader, read, batch=2)
    assert torch.equal(again[torch.tensor([3])], cache[torch.tensor([3])])
    assert asked == []


def test_another_encoder_and_other_levels_have_another_mark(autoencoder: Autoencoder) -> None:
    levels = read_levels(autoencoder.taesd_encoder)
    torch.manual_seed(1)
    other = Autoencoder().taesd_encoder
    mark = encoder_mark(autoencoder.taesd_encoder, levels)
    assert mark == encoder_mark(autoencoder.taesd_encoder, levels)
    assert mark not in (encoder_mark(other, levels), encoder_mark(other, levels[1:]))


def test_latents_and_an_encoders_tokens_are_one_level() -> None:
    assert latent_features(torch.randn(3, 16, 8, 8), GRID, WIDTH).shape == (3, 1, 16, WIDTH)
    with_class = torch.randn(3, 1 + 36, 20)
    found = vision_features(with_class, GRID, WIDTH)
    assert found.shape == (3, 1, 16, WIDTH)
    assert torch.equal(found, vision_features(with_class[:, 1:], GRID, WIDTH))
    with pytest.raises(ValueError, match="are no square"):
        vision_features(torch.randn(3, 40, 20), GRID, WIDTH)
    with pytest.raises(ValueError, match="all alike"):
        whitened(torch.ones(3, 4, 5), WIDTH)


def test_a_sample_is_spread_evenly() -> None:
    assert spread(5, 256) == [0, 1, 2, 3, 4]
    assert spread(1000, 4) == [0, 250, 500, 750]
