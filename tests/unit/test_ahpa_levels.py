"""Levels of VAE encoders and their features: which blocks, which groups, on which grid."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from comfyui_calibri.ahpa.features import FeatureReader, on_grid
from comfyui_calibri.ahpa.levels import (
    DEEP,
    MIDDLE,
    SHALLOW,
    UnknownEncoderError,
    chosen_levels,
    read_levels,
)
from comfyui_calibri.demo.autoencoder import Autoencoder


@pytest.fixture(scope="module")
def autoencoder() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder().eval()


def test_a_taesd_has_a_shallow_a_middle_and_a_deep_group(autoencoder: Autoencoder) -> None:
    levels = read_levels(autoencoder.taesd_encoder)
    assert [(level.module, level.stage) for level in levels] == [
        ("1", 0),
        *((str(i), 1) for i in (3, 4, 5)),
        *((str(i), 2) for i in (7, 8, 9)),
        *((str(i), 3) for i in (11, 12, 13)),
    ]
    assert {level.stage: level.group for level in levels} == {
        0: SHALLOW,
        1: SHALLOW,
        2: MIDDLE,
        3: DEEP,
    }


def test_a_stage_halves_the_resolution(autoencoder: Autoencoder) -> None:
    levels = read_levels(autoencoder.taesd_encoder)
    sizes: list[int] = []
    encoder = autoencoder.taesd_encoder
    for level in levels:
        encoder.get_submodule(level.module).register_forward_hook(
            lambda _module, _inputs, output: sizes.append(output.shape[-1])
        )
    autoencoder.encode(torch.rand(1, 3, 64, 64))
    assert sizes == [64 // 2**level.stage for level in levels]
    for module in encoder:
        module._forward_hooks.clear()


def test_features_are_the_blocks_outputs_on_the_token_grid(autoencoder: Autoencoder) -> None:
    encoder = autoencoder.taesd_encoder
    levels = chosen_levels(read_levels(encoder), "middle, 13")
    assert [level.module for level in levels] == ["7", "8", "9", "13"]
    reader = FeatureReader(encoder, levels, autoencoder.encode)
    pictures = torch.rand(2, 3, 64, 64)
    features = reader.read(pictures, (4, 4))
    assert [f.shape for f in features] == [(2, 16, 64)] * 4
    whole = encoder[:14](pictures)  # 8 x 8 cells
    assert torch.allclose(features[3], on_grid(whole, (4, 4)), atol=1e-6)
    assert torch.allclose(features[3][:, 0], whole[:, :, :2, :2].mean((2, 3)), atol=1e-6)
    assert not any(module._forward_hooks for module in encoder.modules())


def test_a_finer_grid_is_interpolated_and_one_frame_is_a_picture() -> None:
    features = torch.rand(1, 5, 2, 2)
    assert on_grid(features, (4, 4)).shape == (1, 16, 5)
    assert torch.equal(on_grid(features[:, :, None], (2, 2)), on_grid(features, (2, 2)))
    with pytest.raises(ValueError, match="3 frames"):
        on_grid(torch.rand(1, 5, 3, 2, 2), (2, 2))


def test_tiles_are_refused(autoencoder: Autoencoder) -> None:
    def in_tiles(pictures: Tensor) -> None:
        for half in pictures.chunk(2, dim=-1):
            autoencoder.encode(half)

    levels = read_levels(autoencoder.taesd_encoder)
    reader = FeatureReader(autoencoder.taesd_encoder, levels, in_tiles)
    with pytest.raises(RuntimeError, match="in tiles"):
        reader.read(torch.rand(1, 3, 64, 64), (4, 4))
    idle = FeatureReader(autoencoder.taesd_encoder, levels, lambda _: None)
    with pytest.raises(RuntimeError, match="without running its encoder"):
        idle.read(torch.rand(1, 3, 64, 64), (4, 4))


@pytest.mark.parametrize(
    "encoder",
    [nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3)), nn.Sequential(nn.Conv2d(3, 4, 3))],
)
def test_other_encoders_are_named(encoder: nn.Module) -> None:
    with pytest.raises(UnknownEncoderError, match=f"a {type(encoder).__name__}"):
        read_levels(encoder)


def test_too_few_stages_are_named(autoencoder: Autoencoder) -> None:
    with pytest.raises(UnknownEncoderError, match="has 3 stages"):
        read_levels(autoencoder.taesd_encoder[:10])


def test_a_choice_that_does_not_exist_is_named(autoencoder: Autoencoder) -> None:
    levels = read_levels(autoencoder.taesd_encoder)
    for choice in ("deepest", "", "middle, 6"):
        with pytest.raises(ValueError, match="There is no level"):
            chosen_levels(levels, choice)
