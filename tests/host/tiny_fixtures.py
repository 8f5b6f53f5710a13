"""Fixtures of the tests that put nodes on tiny models; a test file imports those it uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP

from .tiny_patchers import make_clip, make_model


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    """Nodes run in ComfyUI under inference mode."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> CLIP:
    return make_clip(Path(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module", params=["flux", "sd3"])
def model(request: pytest.FixtureRequest) -> ModelPatcher:
    return make_model(request.param)
