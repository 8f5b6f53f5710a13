"""An external reward that fails in the middle of a calibration: nothing is lost, and it goes on."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import pytest
import torch

from comfyui_calibri.nodes.calibrate import CalibriCalibrate
from comfyui_calibri.nodes.external_rewards import CalibriLoadExternalReward
from comfyui_calibri.rewards.protocol import RewardUnavailableError

from .tiny_patchers import make_clip, make_model, make_vae

pytestmark = pytest.mark.oldest

LIGHT = """
import os

class Light:
    def score(self, images, prompts):
        if os.path.exists("trouble"):
            os._exit(1)
        return images.mean((1, 2, 3)) / 255
"""
AT = 5  # the call of the reward at which the trouble begins, within the first generation


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The `calibri` folder of ComfyUI's user folder."""
    for folder in ("output_directory", "user_directory"):
        monkeypatch.setattr(folder_paths, folder, str(tmp_path))
    (tmp_path / "calibri").mkdir()
    return tmp_path / "calibri"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run of one generation."""
    with torch.inference_mode():
        small = {"width": 16, "height": 16, "steps": 1, "generations": 1, "bucket_size": 2}
        search = {"granularity": "block", "profile": "default", "validate_every": 1, "seed": 1}
        sampler = {"sampler": "euler", "scheduler": "simple", "cfg": 1.0, "guidance": 3.5}
        prompts = {
            "prompts": ("a circle", "a star", "a ring"),
            "held_out": ("a cross", "a square"),
            "negative": "",
        }
        clip = make_clip(Path(tmp_path_factory.mktemp("clip")))
        model = {"model": make_model(), "clip": clip, "vae": make_vae()}
        return {**small, **search, **sampler, **prompts, **model}


class Lamp(BaseHTTPRequestHandler):
    """A server of images' means."""

    def do_POST(self) -> None:
        raw = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["raw"]
        pixels = np.frombuffer(base64.b64decode(raw["data"]), np.uint8).reshape(raw["shape"])
        body = json.dumps({"scores": (pixels.mean((1, 2, 3)) / 255).tolist()}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


def serve(port: int) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", port), Lamp)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


def end(server: ThreadingHTTPServer) -> None:
    server.shutdown()
    server.server_close()


class Then:
    """`reward`, with something that happens before its call number `AT`."""

    def __init__(self, reward: Any, happening: Callable[[], object]) -> None:
        self.name, self.differentiable, self.card = reward.name, False, reward.card
        self._reward, self._happening = reward, happening
        self.calls = 0

    def score(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        self.calls += 1
        if self.calls == AT:
            self._happening()
        scores: torch.Tensor = self._reward.score(images, prompts)
        return scores


def declared(folder: Path, **settings: Any) -> Any:
    lines = "".join(f"    {key}: {value}\n" for key, value in settings.items())
    text = f"rewards:\n  Light:\n    licence: MIT\n    batch: 4\n    needs_prompt: no\n{lines}"
    (folder / "rewards.yaml").write_text(text)
    return CalibriLoadExternalReward.execute("Light").args[0]


def breaks_and_goes_on(
    inputs: dict[str, Any],
    reward: Any,
    begin: Callable[[], object],
    mend: Callable[[], object],
    said: str,
) -> None:
    first = Then(reward, lambda: None)
    whole = CalibriCalibrate.execute(**inputs, reward=first, run_name="whole").args[0]
    with pytest.raises(RewardUnavailableError, match=said):
        CalibriCalibrate.execute(**inputs, reward=Then(reward, begin), run_name="trial")
    mend()
    rest = Then(reward, lambda: None)
    resumed = CalibriCalibrate.execute(**inputs, reward=rest, run_name="trial").args[0]
    assert resumed.members == whole.members
    assert resumed.rewards == whole.rewards
    assert first.calls - rest.calls == AT - 1  # what was scored before is not scored again


def test_a_worker_dies(inputs: dict[str, Any], user: Path) -> None:
    (user / "light.py").write_text(LIGHT)
    worker = {"kind": "worker", "entry": "light.py:Light", "python": "current"}
    file, said = user / "trouble", r"Light \(\w+\)'s worker ended 2 times"
    breaks_and_goes_on(inputs, declared(user, **worker), file.touch, file.unlink, said)


def test_a_server_is_gone(inputs: dict[str, Any], user: Path) -> None:
    servers = [serve(0)]
    port = int(servers[0].server_address[1])
    http = {"kind": "http", "url": f"http://127.0.0.1:{port}/", "format": "raw", "retries": 0}
    reward = declared(user, **http)
    breaks_and_goes_on(
        inputs,
        reward,
        begin=lambda: end(servers[0]),
        mend=lambda: servers.append(serve(port)),
        said=rf"Light: 127\.0\.0\.1:{port} cannot be reached",
    )
    end(servers[1])
