"""The Analyze Blocks node: what it leaves, and that a cancelled one goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.model_management
import numpy as np
import pytest
import torch
from comfy_api.latest import io
from PIL import Image

from comfyui_calibri.calibri.journal import Journal
from comfyui_calibri.nodes.analyze import CalibriAnalyzeBlocks
from comfyui_calibri.nodes.apply import CalibriApply
from comfyui_calibri.nodes.editing import CalibriEdit

from .tiny_fixtures import inference  # noqa: F401
from .tiny_inputs import sampled_inputs
from .tiny_patchers import Brightness

pytestmark = [pytest.mark.oldest, pytest.mark.usefixtures("output")]

PROMPTS = ("a red circle", "two green stars")
BLOCKS = ("double.0", "double.1", "single.0", "single.1")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Four blocks at two scales: 18 images."""
    with torch.inference_mode():
        return {
            **sampled_inputs(Path(tmp_path_factory.mktemp("clip"))),
            "prompts": PROMPTS,
            "sampler": "euler_ancestral",
            "granularity": "block",
            "scales": "0, 1.5",
            "only": "",
            "images_per_prompt": 1,
        }


def analyze(inputs: dict[str, Any], **changes: Any) -> io.NodeOutput:
    return CalibriAnalyzeBlocks.execute(**{**inputs, **changes})


def gains(result: io.NodeOutput) -> dict[str, list[float]]:
    numbers = json.loads(result.args[2])
    return {name: [e["gain"] for e in of] for name, of in numbers["coefficients"].items()}


class Stops(Brightness):
    """Presses Cancel, as the page would, while the reward's call number `at` runs."""

    def __init__(self, at: int) -> None:
        self.left = at

    def score(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        self.left -= 1
        if self.left == 0:
            comfy.model_management.interrupt_current_processing()
        return super().score(images, prompts)


def test_an_analysis_leaves_pictures_and_numbers(inputs: dict[str, Any], output: Path) -> None:
    result = analyze(inputs)
    heat_map, curves, numbers, double, single = result.args
    for image in (heat_map, curves):
        assert (image.shape[0], image.shape[2], image.shape[3]) == (1, 1000, 3)
        assert 0.0 <= float(image.min()) < float(image.max()) <= 1.0
    folder = output / "calibri" / "trial"
    assert json.loads((folder / "analysis.json").read_text(encoding="utf-8")) == json.loads(numbers)
    for shown in result.ui["images"]:
        Image.open(output / shown["subfolder"] / shown["filename"]).verify()
    found = gains(result)
    assert tuple(found) == BLOCKS
    assert np.all(np.abs(list(found.values())) > 1e-6), "every block of the tiny model matters"
    assert json.loads(numbers)["counts"]["images"] == (1 + 4 * 2) * 2
    told = json.loads(numbers)["skip_layer_guidance"]
    assert (double, single) == (told["double_layers"], told["single_layers"])
    assert str(folder) in result.ui["text"][0]


def test_scale_0_is_the_model_of_a_preset_that_leaves_the_block_out(
    inputs: dict[str, Any],
) -> None:
    found = gains(analyze(inputs, only="single.1"))
    assert tuple(found) == ("single.1",)
    (without, _) = CalibriEdit.execute("block", "single.1=0", model=inputs["model"]).args
    (model,) = CalibriApply.execute(inputs["model"], without, 1.0, 0.0, 1.0).args
    plain, left_out = (
        json.loads(analyze(inputs, only="single.0", **change).args[2])["plain"]["mean"]
        for change in ({}, {"model": model})
    )
    assert found["single.1"][0] == pytest.approx(left_out - plain, abs=1e-6)


def test_a_cancelled_analysis_goes_on_and_more_images_extend_it(
    inputs: dict[str, Any], output: Path
) -> None:
    whole = gains(analyze(inputs, run_name="whole", images_per_prompt=2))
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        analyze(inputs, reward=Stops(1))
    with Journal.read(output / "calibri" / "runs" / "trial" / "journal.sqlite") as journal:
        (begun,) = journal.evaluations()
        assert 0 < begun.done < begun.rewards.size
    analyze(inputs)
    assert gains(analyze(inputs, images_per_prompt=2)) == whole
    again = gains(analyze(inputs, images_per_prompt=2, reward=Stops(1)))
    assert again == whole
    assert sorted(path.name for path in (output / "calibri" / "runs").iterdir()) == [
        "trial",
        "whole",
    ]
    with Journal.read(output / "calibri" / "runs" / "trial" / "journal.sqlite") as journal:
        assert [e.kind for e in journal.events()].count("finished") == 3
    analyze(inputs, only="single.1")
    assert (output / "calibri" / "trial-2").is_dir()


def test_bad_inputs_are_said_before_the_run() -> None:
    check = CalibriAnalyzeBlocks.validate_inputs
    assert check("0, 0.5", "double.0-1, single", "name") is True
    assert check(None, None, None) is True
    assert "scales: '3' is no scale" in str(check("3", "", "name"))
    assert "only: 'double..0' has an empty part" in str(check("0", "double..0", "name"))
    assert "cannot name a file" in str(check("0", "", "../x"))


def test_what_does_not_fit_the_model_is_said_in_one_sentence(inputs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"'joint' fits no coefficient: the nearest names are"):
        analyze(inputs, only="joint")
    with pytest.raises(ValueError, match="at least two"):
        analyze(inputs, prompts=("a red circle",))
