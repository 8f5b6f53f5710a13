"""A QRM has at most 1 % of the parameters of its model, at published sizes.

Not on v0.3.64: the classes have the same sizes there.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import nn

from comfyui_calibri.benchmarks.random_models import flux, on_meta, sd3
from comfyui_calibri.qrm.config import QRMConfig, parameters

from .dits.qwen_image import FULL, make


def sd35_medium() -> nn.Module:
    return on_meta(sd3(24, 13, side=64, text=154))[0]


def flux_dev() -> nn.Module:
    return on_meta(flux(19, 38, 24, 128, side=64, text=512))[0]


def qwen_image() -> nn.Module:
    return make(**FULL)


@pytest.mark.parametrize("mode", ["add", "gates"])
@pytest.mark.parametrize(
    ("model", "billions", "tokens", "pooled", "width"),
    [
        (sd35_medium, 2.2, 4096, 2048, 384),
        (flux_dev, 11.9, 4096, 768, 768),
        (qwen_image, 20.4, 3584, 0, 768),
    ],
)
def test_it_is_one_per_cent_of_published_models(
    model: Callable[[], nn.Module],
    billions: float,
    tokens: int,
    pooled: int,
    width: int,
    mode: str,
) -> None:
    made = model()
    size = sum(parameter.numel() for parameter in made.parameters())
    assert size / 1e9 == pytest.approx(billions, rel=0.02)
    config = QRMConfig.for_backbone(made, tokens, pooled, mode)
    assert config.width == width
    assert 0.002 * size <= parameters(config) <= 0.01 * size
    if width == 384:
        assert (config.layers, config.compressed) == (3, 8)
