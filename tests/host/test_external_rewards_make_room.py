"""A slice that waits for another process: whoever waits for the queue is not held up by it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folder_paths
import pytest
import torch

from comfyui_calibri.calibri import yielding
from comfyui_calibri.nodes.background import pace
from comfyui_calibri.nodes.external_rewards import CalibriLoadExternalReward
from comfyui_calibri.rewards.protocol import RewardUnavailableError

pytestmark = pytest.mark.oldest

IMAGES = torch.zeros(1, 8, 8, 3)


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A reward of a server that takes what it is sent, and never answers."""
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    monkeypatch.setattr(yielding, "PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        (tmp_path / "calibri").mkdir()
        (tmp_path / "calibri" / "rewards.yaml").write_text(
            "rewards:\n  Far:\n    kind: http\n    licence: MIT\n    timeout: 3\n"
            f"    url: http://127.0.0.1:{server.getsockname()[1]}/score\n"
        )
        yield CalibriLoadExternalReward.execute("Far").args[0]


def test_a_hanging_reward_is_left_for_whoever_waits(hanging: Any) -> None:
    came = time.monotonic() + 0.5
    with (
        pace.Pace().looking(lambda: time.monotonic() > came),
        pytest.raises(pace.YieldedError),
    ):
        hanging.score(IMAGES, ["a"])
    assert 0.3 <= time.monotonic() - came < 2.0


def test_where_nobody_waits_it_has_its_time(hanging: Any) -> None:
    with (
        pace.Pace().looking(lambda: False),
        pytest.raises(RewardUnavailableError, match="did not answer within 3 s"),
    ):
        hanging.score(IMAGES, ["a"])
    with pytest.raises(RewardUnavailableError):  # outside a slice
        hanging.score(IMAGES, ["a"])
