"""A ComfyUI that was told to trust everybody, with presets, for the tests of /calibri/presets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from comfyui_calibri.calibri.editing import plain_preset
from comfyui_calibri.calibri.model_file import open_model_file
from comfyui_calibri.calibri.preset_metadata import Preset, RewardChange
from comfyui_calibri.calibri.presets import save_preset

from .background_graph import TINY, write_tiny_model
from .forked_server import ForkedServer, ForkServer
from .library_client import Answer, Ask, ask

DEMO = "calibri-demo.safetensors"
PICTURE = b"\xff\xd8\xff\xe0 not much of a picture"


@pytest.fixture(scope="module")
def server(
    fork_server: ForkServer, comfyui: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ForkedServer]:
    """A ComfyUI that was told to trust everybody."""
    options = ("--enable-cors-header", "--multi-user")
    running = ForkedServer(
        fork_server, comfyui, tmp_path_factory.mktemp("library"), options=options
    )
    write_tiny_model(running.models)
    with running:
        yield running


@pytest.fixture
def call(server: ForkedServer) -> Ask:
    def call(method: str, path: str, body: object = None, **options: object) -> Answer:
        return ask(server.url, method, path, body, **options)  # type: ignore[arg-type]

    return call


@pytest.fixture(scope="module")
def preset(server: ForkedServer) -> Preset:
    """A preset for the tiny model, with a gain and a picture."""
    with open_model_file(server.models / "diffusion_models" / TINY, "sd3") as file:
        plain = plain_preset(file.backbone, "gate", TINY)
    gain = RewardChange("ImageReward", 0.1, 0.4, 0.2, 0.4, 64, searched=True)
    return replace(plain, title="Night", rewards=(gain,), licence="CC0", thumbnail=PICTURE)


@pytest.fixture
def put(server: ForkedServer, preset: Preset) -> Iterator[Callable[..., Path]]:
    """Saves the preset under a name, by hand as it were; afterwards there are none."""
    folder = server.models / "calibri"

    def put(name: str, **changes: object) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save_preset(path, replace(preset, **changes))  # type: ignore[arg-type]
        return path

    yield put
    for file in folder.rglob("*.safetensors"):
        file.unlink()
