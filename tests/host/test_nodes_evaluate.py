"""Evaluate Calibration: its report is whole, nothing is overwritten, a cancelled one goes on."""

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
from comfy_extras.nodes_model_advanced import ModelSamplingFlux

from comfyui_calibri.calibri.comparison import Setting
from comfyui_calibri.calibri.comparison_course import Cells, compare
from comfyui_calibri.calibri.comparison_store import PartFolder
from comfyui_calibri.calibri.evaluation import Sample
from comfyui_calibri.nodes.apply import with_preset
from comfyui_calibri.nodes.calibration_inputs import sampling_record
from comfyui_calibri.nodes.evaluate import CalibriEvaluate
from comfyui_calibri.nodes.evaluation_run import prepare_evaluation
from comfyui_calibri.nodes.patching import backbone_of
from comfyui_calibri.nodes.sampling import SamplerSettings

from .evaluation_cases import PROMPTS, evaluation_inputs, painter, preset
from .tiny_fixtures import inference  # noqa: F401
from .tiny_patchers import Brightness, make_model

pytestmark = [pytest.mark.oldest, pytest.mark.usefixtures("output")]

SETTINGS = SamplerSettings("euler", "simple", 1, 1.0, 3.5, 16, 16, "")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with torch.inference_mode():
        return evaluation_inputs(tmp_path_factory.mktemp("clip"))


def evaluate(inputs: dict[str, Any], **changes: Any) -> io.NodeOutput:
    return CalibriEvaluate.execute(**{**inputs, **changes})


def test_the_report_is_in_a_folder_of_its_own_and_on_the_node(
    inputs: dict[str, Any], output: Path
) -> None:
    result = evaluate(inputs, other_reward_1=Darkness())
    report, grid, text = result.args
    numbers = json.loads(text)
    folder = output / "calibri" / "trial"
    assert {path.name for path in folder.iterdir()} == {
        "evaluation.json",
        "evaluation.html",
        "evaluation.png",
        "grid.png",
    }
    assert json.loads((folder / "evaluation.json").read_text()) == numbers
    assert (numbers["variants"], numbers["rewards"]) == (["plain", "half"], ["brightness", "dark"])
    assert [setting["steps"] for setting in numbers["settings"]] == [1, 2]
    assert numbers["prompts"] == list(PROMPTS)
    assert numbers["shown"] == [[0, 1], [1, 1]]  # at the steps that the preset was found with
    for cell in numbers["cells"]:
        scores = np.array([cell["rewards"][name]["scores"] for name in numbers["rewards"]])
        np.testing.assert_allclose(scores[0], -scores[1], rtol=1e-6)
        assert cell["nfe"] == numbers["settings"][cell["setting"]]["steps"]
        assert cell["diversity"]["mean"] > 0
    for picture in (report, grid):
        assert picture.shape[0] == 1
        assert picture.shape[2:] == (1400, 3)
    (shown,) = result.ui["text"]
    assert str(folder / "evaluation.html") in shown

    # Another evaluation of the name draws what is new, and gets a folder of its own.
    before, reward = (folder / "evaluation.json").read_bytes(), Counted()
    again = evaluate(inputs, reward=reward, other_reward_1=Darkness(), steps="1,2,3")
    wider = json.loads(again.args[2])
    assert reward.images == 12  # plain and the preset at three steps
    # To the last bit, times included: the others were read.
    assert [c for c in wider["cells"] if c["setting"] < 2] == numbers["cells"]
    folders = sorted(path.name for path in (output / "calibri").iterdir())
    assert folders == ["evaluations", "trial", "trial-2"]
    assert (folder / "evaluation.json").read_bytes() == before


def test_a_cancelled_evaluation_goes_on(inputs: dict[str, Any], output: Path) -> None:
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        evaluate(inputs, reward=Counted(stop=3))
    assert [path.name for path in (output / "calibri").iterdir()] == ["evaluations"]
    kept = PartFolder(output / "calibri" / "evaluations" / "trial")
    rest = Counted()
    resumed = cells_of({**inputs, "reward": rest}, kept)
    assert rest.images == 24 - 3 * 6
    for cell, found in cells_of(inputs).items():
        np.testing.assert_array_equal(
            found.scores["brightness"], resumed[cell].scores["brightness"]
        )
        np.testing.assert_array_equal(found.diversity, resumed[cell].diversity)


def cells_of(inputs: dict[str, Any], kept: PartFolder | None = None) -> Cells:
    """What the node measures, without its report."""
    given = {name: value for name, value in inputs.items() if name != "name"}
    prepared = prepare_evaluation(say=lambda text: None, **given)
    return compare(prepared.comparison, prepared.painter, kept)


def test_kept_results_are_known_by_all_that_decides_pictures(inputs: dict[str, Any]) -> None:
    def guided(scale: float) -> Any:
        model = inputs["model"].clone()
        model.set_model_sampler_post_cfg_function(lambda args: args["denoised"] * scale)
        return model

    def controlled(value: float) -> Any:
        model = inputs["model"].clone()
        model.set_model_double_block_patch(Control(torch.full((1, 8, 8, 3), value)))
        return model

    (shifted,) = ModelSamplingFlux().patch(inputs["model"], 3.0, 2.0, 64, 64)
    reweighted = Brightness()
    reweighted.weights = "other"
    skipped, longer, wrapped = inputs["clip"].clone(), inputs["clip"].clone(), shifted.clone()
    skipped.clip_layer(-2)
    longer.set_tokenizer_option("min_length", 1)
    wrapped.add_wrapper("diffusion_model", lambda executor, *args, **kwargs: executor(*args))
    merged = make_model()  # the same numbers again, and a LoRA in one weight
    merged.model.load_state_dict(inputs["model"].model.state_dict())
    assert painter(inputs, model=merged).mark(0) == painter(inputs).mark(0)
    changed = merged.model.diffusion_model.double_blocks[1].img_mlp[0].weight
    changed += torch.randn(len(changed), 1) @ torch.randn(1, changed.shape[1]) * 0.01
    changes = [
        {},
        {"negative": "red"},
        {"guidance": 4.0},
        {"reward": reweighted},
        {"model": shifted},
        {"model": wrapped},
        {"model": merged},
        {"clip": skipped},
        {"clip": longer},
        {"model": controlled(0.0)},
        {"model": controlled(0.5)},
        {"model": guided(0.8)},
        {"model": guided(0.9)},
    ]
    half = inputs["preset_1"]
    marks = [
        painter(inputs, half, **change).mark(variant) for change in changes for variant in (0, 1)
    ]
    assert len(set(marks)) == len(marks)
    cells_of(inputs)  # sampling, and loading, change no mark
    again = [painter(inputs, half, model=guided(0.9)).mark(variant) for variant in (0, 1)]
    assert again == marks[-2:]
    stateful = controlled(0.5)
    stateful.model_options["transformer_options"]["patches"]["double_block"][0].calls = 7
    assert painter(inputs, half, model=stateful).mark(0) == marks[-6]
    # What Calibrate and Analyze go on with is told apart by the same.
    told = ("model", "clip")
    records = [
        sampling_record(
            *({**inputs, **change}[name] for name in (*told, "vae", "reward")), SETTINGS
        )
        for change in changes
        if not change or set(change) & set(told)
    ]
    assert len({json.dumps(record) for record in records}) == len(records)


def test_where_memory_is_ample_an_ensemble_leaves_the_batches_as_they_are(
    inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    half = inputs["preset_1"]
    both = preset(backbone_of(inputs["model"]), 0.9, 1.1)
    setting, bucket = Setting(2, 1.0, "euler", "simple", 16, 16), [Sample(0, i) for i in range(32)]
    plans = [painter(inputs, *p).plan(setting, bucket) for p in ((half,), (half, both))]
    assert plans[0] == plans[1]
    # Where it is not, its members count.
    model = inputs["model"].model
    asked: list[int] = []
    monkeypatch.setattr(model, "memory_required", lambda shape: asked.append(shape[0]) or 0)
    painter(inputs, half, both).plan(setting, bucket)
    painter(inputs, half).plan(setting, bucket)
    assert asked[0] == 2 * asked[1]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"steps": "many"}, "steps has 'many'"),
        ({"cfg": ""}, "cfg is empty"),
        ({"sizes": "512"}, "sizes has '512'"),
        ({"other_samplers": "euler, nothing"}, "other_samplers has 'nothing'"),
        ({"name": "../elsewhere"}, "cannot name a file"),
        ({"sampler": "dpm_adaptive"}, "dpm_adaptive' cannot be used"),
        ({"other_samplers": "dpm_adaptive"}, "dpm_adaptive' cannot be used"),
        ({"steps": " ".join(map(str, range(1, 52)))}, "combine to 102 settings"),
    ],
)
def test_what_is_wrong_is_said_before_the_run(changes: dict[str, str], problem: str) -> None:
    good = {"steps": "4", "cfg": "1", "sizes": "512x512", "name": "a"}
    good |= {"sampler": "euler", "other_samplers": "heun"}
    assert CalibriEvaluate.validate_inputs(**good) is True
    assert CalibriEvaluate.validate_inputs(**dict.fromkeys(good)) is True  # all linked
    said = CalibriEvaluate.validate_inputs(**{**good, **changes})
    assert isinstance(said, str)
    assert problem in said


def test_what_does_not_fit_is_said_before_anything_is_drawn(inputs: dict[str, Any]) -> None:
    backbone = backbone_of(make_model("sd3"))
    reward = Counted(stop=1)
    for change, problem in (
        ({"preset_2": preset(backbone, 0.5)}, "preset_2: The preset is for sd3"),
        (
            {"model": with_preset(inputs["model"], inputs["preset_1"])},
            "model has a preset by Apply",
        ),
        ({"sampler": "dpm_adaptive"}, "dpm_adaptive"),
        ({"scheduler": "nosuch"}, "The scheduler 'nosuch' does not exist"),
        ({"prompts": ("one",)}, "at least two"),
        ({"reward": Brightness(), "other_reward_2": Brightness()}, "a name of its own"),
    ):
        with pytest.raises(ValueError, match=problem):
            evaluate(inputs, **{"reward": reward, **change})


class Control:
    """A patch as stock control nodes leave it: with an image, and something it counts."""

    def __init__(self, image: torch.Tensor) -> None:
        self.image, self.calls = image, 0

    def __call__(self, values: dict[str, Any]) -> dict[str, Any]:
        self.calls += 1
        return values


class Counted(Brightness):
    """Counts the images it scores; presses Cancel, as the page would, at its call `stop`."""

    def __init__(self, stop: int = 0) -> None:
        self.images, self.calls, self.stop = 0, 0, stop

    def score(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        self.images += len(images)
        self.calls += 1
        if self.calls == self.stop:
            comfy.model_management.interrupt_current_processing()
        return super().score(images, prompts)


class Darkness(Brightness):
    name = "dark"

    def score(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        return -super().score(images, prompts)
