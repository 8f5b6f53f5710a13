"""`--engine ray` on ComfyUI itself: workers, and rewards on a worker of their own, find what one
process finds, in a run that the page began. Not on v0.3.64, whose environment has no Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from comfyui_calibri.calibri import ray_connection
from comfyui_calibri.calibri.journal import Journal
from comfyui_calibri.calibri.settings import SETTINGS
from comfyui_calibri.cli import app
from comfyui_calibri.demo.prompts import generate_prompts
from comfyui_calibri.demo.weights import DIT, TEXT_ENCODER, VAE, WEIGHTS
from comfyui_calibri.nodes.calibration_run import run_calibration
from comfyui_calibri.nodes.headless import ModelFiles, load, reward_named
from comfyui_calibri.nodes.surroundings import refusal, surroundings, versions

from .background_graph import Prompt
from .tiny_fixtures import inference  # noqa: F401

pytest.importorskip("ray", reason="the extra ray is not installed")
pytestmark = pytest.mark.usefixtures("output")

SEARCH: dict[str, Any] = {
    **{name: setting.default for name, setting in SETTINGS.items()},
    **{"sampler": "euler_ancestral", "steps": 1, "width": 64, "height": 64, "seed": 1},
    **{"granularity": "block", "generations": 1, "bucket_size": 2, "validate_every": 1},
}
PROMPTS = tuple(generate_prompts(4, 1, "train"))
HELD_OUT = tuple(generate_prompts(2, 1, "test"))


@pytest.fixture(autouse=True)
def left() -> Iterator[None]:
    """Nothing of Ray is left for other tests, whatever happens."""
    yield
    ray_connection.disconnect()


def begin(run_name: str) -> None:
    """What Calibrate does in the page, with the demo model."""
    graph: Prompt = {
        "1": {"class_type": "UNETLoader", "inputs": {"unet_name": Path(DIT).name}},
        "2": {
            "class_type": "CalibriLoadDemoTextEncoder",
            "inputs": {"text_encoder": Path(TEXT_ENCODER).name},
        },
        "3": {"class_type": "VAELoader", "inputs": {"vae_name": Path(VAE).name}},
        "4": {"class_type": "CalibriDemoReward", "inputs": {}},
    }
    linked = {"model": ["1", 0], "clip": ["2", 0], "vae": ["3", 0], "reward": ["4", 0]}
    graph["5"] = {"class_type": "CalibriCalibrate", "inputs": linked}
    loaded = load(ModelFiles(None, WEIGHTS / DIT, (WEIGHTS / TEXT_ENCODER,), None, WEIGHTS / VAE))
    run_calibration(
        run_name,
        lambda _: None,
        graph,
        "5",
        model=loaded.model,
        clip=loaded.clip,
        vae=loaded.vae,
        reward=reward_named("demo"),
        prompts=PROMPTS,
        held_out=HELD_OUT,
        **SEARCH,
    )


def resume(comfyui: Path, *arguments: object) -> Result:
    words = ["resume", *map(str, arguments), "--comfyui", str(comfyui), "--cpu"]
    return CliRunner().invoke(app, words)


def rows(output: Path, run: str) -> dict[tuple[str, int], Any]:
    """What the run measured, exactly."""
    with Journal.read(output / "calibri" / "runs" / run / "journal.sqlite") as journal:
        return {
            (e.role, e.generation): (e.vectors.tobytes(), e.bucket, e.rewards.tobytes())
            for e in journal.evaluations()
            if e.role in ("generation", "validation")
        }


@pytest.mark.slow
def test_a_run_of_the_page_goes_on_on_workers_with_the_same_result(
    comfyui: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin("whole")
    one = resume(comfyui, "whole", "--generations", 3, "--images-at-once", 8)
    assert one.exit_code == 0, one.stderr
    begin("shared")
    ray = ("--engine", "ray", "--images-at-once", 8)
    with monkeypatch.context() as patch:  # it takes seconds to begin a Ray: one for both
        patch.setattr(ray_connection, "disconnect", lambda: None)
        two = resume(comfyui, "shared", "--generations", 2, *ray, "--workers", 2)
    assert two.exit_code == 0, two.stderr
    assert "A worker is ready" in two.stderr
    apart = ("--workers", 1, "--reward-workers", 1)
    three = resume(comfyui, "shared", "--generations", 3, *ray, *apart)
    assert three.exit_code == 0, three.stderr
    shared, whole = rows(output, "shared"), rows(output, "whole")
    assert len(whole) == 7  # the plain model's validation, three generations, a validation of each
    assert shared == whole


def test_a_worker_with_other_versions_refuses_before_it_loads_a_model() -> None:
    ours = versions()
    assert refusal(ours) == ""
    assert refusal({"torch": ours["torch"].partition("+")[0]}) == ""
    told = refusal({**ours, "comfyui": "0.0.1", "pack's files": "another"})
    assert f"its ComfyUI is {ours['comfyui']}, the driver's 0.0.1; " in told
    assert "the driver's another. Install the same on all machines" in told
    assert surroundings()["device"] == "cpu"
