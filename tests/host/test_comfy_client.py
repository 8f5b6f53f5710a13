"""Prompts over HTTP with stock nodes: what the tests of the workflows and scripts/demo stand on."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from PIL import Image

from comfy_client import PromptError

if TYPE_CHECKING:
    from comfy_client import ComfyClient
    from comfy_server import ComfyServer

pytestmark = pytest.mark.oldest


def picture_prompt(**changes: Any) -> dict[str, Any]:
    """Save one green picture of 24 x 16 pixels."""
    size = {"width": 24, "height": 16, "batch_size": 1, "color": 0x00FF00}
    return {
        "1": {"class_type": "EmptyImage", "inputs": {**size, **changes}},
        "2": {
            "class_type": "SaveImage",
            "inputs": {"images": ["1", 0], "filename_prefix": "client/green"},
        },
    }


def test_a_prompt_leaves_its_picture_in_the_servers_own_output_folder(
    client: ComfyClient, server: ComfyServer
) -> None:
    events: list[str] = []
    result = client.run(picture_prompt(), lambda kind, _: events.append(kind))
    assert {"execution_start", "executed", "execution_success"} <= set(events)
    (shown,) = result.outputs["2"]["images"]
    picture = Image.open(io.BytesIO(client.image(shown))).convert("RGB")
    assert picture.size == (24, 16)
    assert picture.getpixel((0, 0)) == (0, 255, 0)
    assert (server.output / "client" / shown["filename"]).is_file()


def test_a_prompt_that_is_not_valid_says_which_value(client: ComfyClient) -> None:
    with pytest.raises(PromptError, match=r"EmptyImage \(node 1\): .*width"):
        client.run(picture_prompt(width=0))


def test_a_node_that_fails_says_why(client: ComfyClient, server: ComfyServer) -> None:
    (server.folder / "input" / "broken.png").write_bytes(b"no picture")
    prompt = picture_prompt()
    prompt["1"] = {"class_type": "LoadImage", "inputs": {"image": "broken.png"}}
    with pytest.raises(PromptError, match=r"LoadImage \(node 1\): .*broken\.png"):
        client.run(prompt)


def test_nothing_is_written_into_comfyui(
    client: ComfyClient, server: ComfyServer, comfyui: Path, root: Path
) -> None:
    client.run(picture_prompt(color=1))
    assert server.process is not None
    start = psutil.Process(server.process.pid).create_time()
    written = [
        file
        for file in comfyui.rglob("*")
        if file.lstat().st_mtime > start and root not in (file, *file.parents)
    ]
    assert written == []
