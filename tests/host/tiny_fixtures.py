"""Fixtures of the tests that put nodes on tiny models; a test file imports those it uses, but for
`output` and `steady_memory`, which conftest.py gives to all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
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


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ComfyUI's output folder, and its user folder too."""
    for folder in ("output_directory", "user_directory"):
        monkeypatch.setattr(folder_paths, folder, str(tmp_path))
    return tmp_path


@pytest.fixture
def steady_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight free GiB, for torch.compile. ComfyUI's attention on a CPU asks the system each time,
    where dynamo breaks the graph and compiles the asking too: that took most of the time.
    """
    free = 8 * 2**30

    def steady(dev: Any = None, torch_free_too: bool = False) -> int | tuple[int, int]:
        return (free, free) if torch_free_too else free

    monkeypatch.setattr(comfy.model_management, "get_free_memory", steady)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> CLIP:
    return make_clip(Path(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module", params=["flux", "sd3"])
def model(request: pytest.FixtureRequest) -> ModelPatcher:
    return make_model(request.param)
