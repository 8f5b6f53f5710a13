"""Load External Reward: what the server-side file declares, made, used, killed and used again."""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management
import folder_paths
import psutil
import pytest
import torch

from comfy_client import PromptError
from comfyui_calibri.nodes import external_rewards
from comfyui_calibri.nodes.external_rewards import CalibriLoadExternalReward, rewards_file
from comfyui_calibri.rewards.protocol import Reward, RewardUnavailableError

if TYPE_CHECKING:
    from comfy_client import ComfyClient
    from comfy_server import ComfyServer

pytestmark = pytest.mark.oldest

MODULE = """
import os

class Tiny:
    def score(self, images, prompts):
        print("pid", os.getpid())
        for image in range(len(images)):
            if images[image, 0, 0, 0] == 13:
                os._exit(1)
        return [images[image, 0, 0, 0] / 255 + len(prompts[image]) for image in range(len(images))]
"""


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The `calibri` folder of ComfyUI's user folder, with a wheel of a package beside it."""
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    folder = tmp_path / "calibri"
    folder.mkdir()
    info = "tiny_scorer-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_scorer-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_scorer.py", MODULE)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-scorer\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return folder


def declare(folder: Path, name: str = "Tiny", **settings: Any) -> None:
    lines = "".join(f"    {key}: {value}\n" for key, value in settings.items())
    (folder / "rewards.yaml").write_text(f"rewards:\n  {name}:\n    licence: MIT\n{lines}")


def declare_isolated(folder: Path) -> None:
    declare(
        folder,
        kind="worker",
        entry="tiny_scorer:Tiny",
        python=sys.executable,
        packages="[tiny-scorer]",
        install_options="[--no-index, --find-links=.]",
    )


def load(name: str = "Tiny") -> Any:
    assert CalibriLoadExternalReward.validate_inputs(name) is True
    return CalibriLoadExternalReward.execute(name).args[0]


def pids(folder: Path) -> list[int]:
    logs = "".join(file.read_text() for file in (folder / "logs").glob("*.log"))
    return [int(number) for number in re.findall(r"^pid (\d+)$", logs, re.MULTILINE)]


def is_alive(pid: int) -> bool:
    return bool(psutil.pid_exists(pid))


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def greys(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 8, 8, 3)


def test_an_isolated_worker_is_made_used_killed_and_used_again(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(external_rewards, "show_on_node", lambda _, text: said.append(text))
    declare_isolated(user)
    reward = load()
    assert isinstance(reward, Reward)
    assert not (user / "environments").exists()  # nothing is made before the first score
    expected = torch.tensor([1.0, 3.0])
    torch.testing.assert_close(reward.score(greys(0, 1), ["a", "bc"]), expected)
    assert any("making its environment" in text for text in said)
    (first,) = set(pids(user))
    os.kill(first, signal.SIGKILL)
    torch.testing.assert_close(reward.score(greys(0, 1), ["a", "bc"]), expected)
    second = pids(user)[-1]
    assert second != first
    with pytest.raises(RewardUnavailableError, match=r"Tiny \(.*\)'s worker ended 2 times"):
        reward.score(greys(13 / 255), ["a"])
    torch.testing.assert_close(reward.score(greys(0, 1), ["a", "bc"]), expected)
    last = pids(user)[-1]
    assert load() is reward  # another node with the same name shares the process
    del reward
    gc.collect()
    assert wait_until(lambda: not is_alive(last))
    assert len(list((user / "environments").glob("*/calibri-environment.json"))) == 1


def test_cancel_ends_the_wait_for_an_environment(user: Path) -> None:
    declare_isolated(user)
    reward = load()
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        reward.score(greys(0), ["a"])
    assert not list((user / "environments").glob("*/calibri-environment.json"))
    torch.testing.assert_close(reward.score(greys(0), ["a"]), torch.tensor([1.0]))


def test_names_come_from_the_server_side_file_only(user: Path) -> None:
    def offered() -> list[str]:
        (entry,) = CalibriLoadExternalReward.define_schema().inputs
        return list(entry.options)

    assert offered() == [external_rewards.NONE]
    refused = CalibriLoadExternalReward.validate_inputs("HPSv3")
    assert str(rewards_file()) in refused
    assert "nothing is declared yet" in refused
    declare(user, kind="http", url="http://127.0.0.1:9/score")
    assert offered() == ["Tiny"]
    for name in ("http://elsewhere/score", "os:system", "../rewards", external_rewards.NONE):
        assert "it has Tiny" in CalibriLoadExternalReward.validate_inputs(name)
        with pytest.raises(ValueError, match="There is no reward"):
            CalibriLoadExternalReward.execute(name)


def test_a_mistake_in_the_file_is_said_with_its_line(user: Path) -> None:
    declare(user, kind="worker", entry="tiny_scorer:Tiny", pakages="[a]")
    said = CalibriLoadExternalReward.validate_inputs("Tiny")
    assert "rewards.yaml, line 6: reward 'Tiny' pakages: there is no such setting" in said
    (user / "rewards.yaml").write_text("rewards:\n  Tiny: {kind")
    assert CalibriLoadExternalReward.define_schema().inputs[0].options == [external_rewards.NONE]
    assert "line 2 is no YAML" in CalibriLoadExternalReward.validate_inputs("Tiny")
    declare(user, kind="worker", entry="missing.py:Tiny")
    assert "missing.py" in CalibriLoadExternalReward.validate_inputs("Tiny")


def test_a_changed_declaration_or_script_is_another_reward(user: Path) -> None:
    (user / "tiny.py").write_text(MODULE)
    declare(user, kind="worker", entry="tiny.py:Tiny", python="current")
    prints = [CalibriLoadExternalReward.fingerprint_inputs("Tiny")]
    first = load()
    (user / "tiny.py").write_text(MODULE + "# changed\n")
    prints.append(CalibriLoadExternalReward.fingerprint_inputs("Tiny"))
    assert load().name != first.name
    declare(user, kind="worker", entry="tiny.py:Tiny", python="current", timeout=5)
    prints.append(CalibriLoadExternalReward.fingerprint_inputs("Tiny"))
    assert len(set(prints)) == 3
    assert CalibriLoadExternalReward.fingerprint_inputs("Tiny") == prints[2]


def test_what_comfyui_writes_into_pictures_holds_no_secret(user: Path) -> None:
    declare(
        user,
        kind="worker",
        entry="json:JSONDecoder",
        environment="{HF_TOKEN: hunter2}",
        options="{key: hunter2}",
        install_options="['--index-url=https://me:hunter2@host/simple']",
    )
    first = CalibriLoadExternalReward.fingerprint_inputs("Tiny")
    assert "hunter2" not in first
    assert "HF_TOKEN" not in first
    declare(user, kind="http", url="http://host/score?key=hunter2")
    assert "hunter2" not in CalibriLoadExternalReward.fingerprint_inputs("Tiny")
    assert CalibriLoadExternalReward.fingerprint_inputs(None) == ""


def test_a_server_that_is_gone_is_named(user: Path) -> None:
    declare(user, kind="http", url="http://127.0.0.1:9/score", retries=0)
    reward = load()
    assert reward.name == "Tiny"
    with pytest.raises(RewardUnavailableError, match=r"Tiny: 127\.0\.0\.1:9 cannot be reached"):
        reward.score(greys(0), ["a"])


def test_a_running_comfyui_scores_with_a_worker(server: ComfyServer, client: ComfyClient) -> None:
    folder = server.folder / "user" / "calibri"
    folder.mkdir(exist_ok=True)
    (folder / "tiny.py").write_text(MODULE)
    declare(folder, "Tiny one", kind="worker", entry="tiny.py:Tiny", python="current")
    info = client.get_json("/object_info/CalibriLoadExternalReward")
    assert "Tiny one" in str(info["CalibriLoadExternalReward"]["input"]["required"]["reward"])

    def scored(colour: int, name: str = "Tiny one") -> str:
        size = {"width": 64, "height": 64, "batch_size": 1, "color": colour}
        prompt = {
            "1": {"class_type": "EmptyImage", "inputs": size},
            "2": {"class_type": "CalibriLoadExternalReward", "inputs": {"reward": name}},
            "3": {
                "class_type": "CalibriScoreImages",
                "inputs": {"images": ["1", 0], "reward": ["2", 0], "prompt": "abc"},
            },
        }
        return str(client.run(prompt).outputs["3"]["text"][0])

    assert "mean 4.0000" in scored(0xFFFFFF)
    assert "mean 3.0000" in scored(0x000000)
    (pid,) = set(pids(folder))  # it stayed between the prompts
    os.kill(pid, signal.SIGKILL)
    assert "mean 3.2000" in scored(0x333333)
    with pytest.raises(PromptError, match="There is no reward 'Other'"):
        scored(0, "Other")
