"""Evaluate Calibration: the node's pictures are those of ComfyUI's own nodes, its report is whole,
a cancelled evaluation goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import numpy as np
import pytest
import torch
from comfy_api.latest import io
from comfy_extras.nodes_model_advanced import ModelSamplingFlux

from comfyui_calibri.calibri.backbones import Backbone
from comfyui_calibri.calibri.coefficients import coefficient_space
from comfyui_calibri.calibri.comparison import Setting
from comfyui_calibri.calibri.comparison_course import Cells, compare
from comfyui_calibri.calibri.comparison_store import PartFolder
from comfyui_calibri.calibri.evaluation import Sample
from comfyui_calibri.calibri.presets import Guidance, Member, Preset
from comfyui_calibri.nodes.apply import CalibriApply
from comfyui_calibri.nodes.conditioning import encode
from comfyui_calibri.nodes.evaluate import CalibriEvaluate
from comfyui_calibri.nodes.evaluation_painter import ComfyPainter
from comfyui_calibri.nodes.evaluation_run import prepare_evaluation
from comfyui_calibri.nodes.patching import backbone_of

from .tiny_fixtures import inference  # noqa: F401
from .tiny_patchers import Brightness, make_clip, make_model, make_vae

pytestmark = [pytest.mark.oldest, pytest.mark.usefixtures("output")]

PROMPTS = ("a red circle", "two green stars", "a pink ring")
SIDE = 16


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """12 images: plain and a preset at 1 and 2 steps."""
    with torch.inference_mode():
        model = make_model()
        return {
            "model": model,
            "clip": make_clip(Path(tmp_path_factory.mktemp("clip"))),
            "vae": make_vae(),
            "prompts": (*PROMPTS, "a prompt too many"),
            "reward": Brightness(),
            "preset_1": preset(backbone_of(model), 0.5),
            "negative": "",
            "sampler": "euler",
            "scheduler": "simple",
            "steps": "2, 1",
            "cfg": "1",
            "sizes": f"{SIDE}x{SIDE}",
            "guidance": 3.5,
            "max_prompts": 3,
            "images_per_prompt": 2,
            "seed": 1,
            "name": "trial",
        }


def preset(backbone: Backbone, *values: float, scale: float | None = None) -> Preset:
    """Members whose coefficients are all `values`; weighted where there are several."""
    names = coefficient_space(backbone, "block").names
    weights = [1.0] if len(values) == 1 else [1.5, -0.5]
    return Preset(
        family=backbone.family,
        blocks=dict(backbone.blocks),
        granularity="block",
        members=tuple(
            Member(dict.fromkeys(names, value), weight)
            for value, weight in zip(values, weights, strict=True)
        ),
        guidance=None if scale is None else Guidance(scale, rescale=False),
        title="half",
        sampling={"steps": 2},
    )


def evaluate(inputs: dict[str, Any], **changes: Any) -> io.NodeOutput:
    return CalibriEvaluate.execute(**{**inputs, **changes})


def painter(inputs: dict[str, Any], *presets: Preset, **changes: Any) -> ComfyPainter:
    given = {**inputs, **changes}
    return ComfyPainter(
        given["model"],
        given["clip"],
        given["vae"],
        presets,
        [given["reward"]],
        PROMPTS,
        given["negative"],
        given["guidance"],
    )


def stock_picture(
    inputs: dict[str, Any], model: Any, sample: Sample, setting: Setting
) -> np.ndarray:
    """What the stock nodes draw: CLIP Text Encode, FluxGuidance, KSampler, VAE Decode."""
    positive = encode(inputs["clip"], PROMPTS[sample.prompt], inputs["guidance"])
    negative = encode(inputs["clip"], inputs["negative"], inputs["guidance"])
    latent = torch.zeros(1, 16, SIDE // 8, SIDE // 8)
    noise = comfy.sample.prepare_noise(latent, sample.seed)
    latents = comfy.sample.sample(
        model,
        noise,
        setting.steps,
        setting.cfg,
        setting.sampler,
        setting.scheduler,
        positive,
        negative,
        latent,
        seed=sample.seed,
        disable_pbar=True,
    )
    image = inputs["vae"].decode(latents)[0].float().clamp(0, 1)
    return (image * 255.0).round().to(torch.uint8).numpy()


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_plain_and_calibrated_pictures_are_those_of_the_stock_nodes(
    inputs: dict[str, Any], sampler: str
) -> None:
    """To the last bit, alone in their batch."""
    setting = Setting(3, 2.0, sampler, "simple", SIDE, SIDE)
    drawing = painter(inputs, inputs["preset_1"])
    drawing.plan(setting, [Sample(0, 5)])
    calibrated = CalibriApply.execute(inputs["model"], inputs["preset_1"], 1.0, 0.0, 1.0).args[0]
    for variant, model in enumerate((inputs["model"], calibrated)):
        sample = Sample(1, 77)
        drawn = drawing.draw(variant, setting, [sample])
        np.testing.assert_array_equal(
            drawn.images[0], stock_picture(inputs, model, sample, setting)
        )
        assert drawn.nfe == 2 * (5 if sampler == "heun" else 3)


def test_ensembles_and_guided_members_are_drawn_and_counted(inputs: dict[str, Any]) -> None:
    backbone = backbone_of(inputs["model"])
    ensemble, guided = preset(backbone, 0.9, 1.1), preset(backbone, 0.9, 1.1, scale=2.0)
    drawing = painter(inputs, ensemble, guided)
    setting = Setting(2, 1.0, "euler", "simple", SIDE, SIDE)
    bucket = [Sample(prompt, 10 + prompt) for prompt in range(3)]
    assert [p for batch in drawing.plan(setting, bucket) for p in batch] == [0, 1, 2]
    drawn = [drawing.draw(variant, setting, bucket) for variant in range(3)]
    assert [one.nfe for one in drawn] == [2, 4, 4]
    for one in drawn[1:]:
        assert not np.array_equal(one.images, drawn[0].images)
    guided_model = CalibriApply.execute(inputs["model"], guided, 1.0, 0.0, 1.0).args[0]
    for place, sample in enumerate(bucket):
        # Other batch sizes differ in the last bits, a byte at most.
        stock = stock_picture(inputs, guided_model, sample, setting)
        assert np.abs(drawn[2].images[place].astype(int) - stock.astype(int)).max() <= 1


def test_a_reward_of_latents_sees_what_was_sampled(inputs: dict[str, Any]) -> None:
    class Energy(Brightness):
        name, accepts = "energy", "latents"

        def score(self, latents: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
            assert latents.shape == (len(prompts), 16, SIDE // 8, SIDE // 8)
            return latents.square().mean(dim=(1, 2, 3))

    setting = Setting(1, 1.0, "euler", "simple", SIDE, SIDE)
    drawing = painter(inputs, reward=Energy())
    drawing.plan(setting, [Sample(0, 5)])
    assert drawing.draw(0, setting, [Sample(0, 5), Sample(2, 6)]).scores["energy"].min() > 0


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

    (shifted,) = ModelSamplingFlux().patch(inputs["model"], 3.0, 2.0, 64, 64)
    reweighted = Brightness()
    reweighted.weights = "other"
    changes = [
        {},
        {"negative": "red"},
        {"guidance": 4.0},
        {"reward": reweighted},
        {"model": shifted},
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


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"steps": "many"}, "steps has 'many'"),
        ({"cfg": ""}, "cfg is empty"),
        ({"sizes": "512"}, "sizes has '512'"),
        ({"other_samplers": "euler, nothing"}, "other_samplers has 'nothing'"),
        ({"name": "../elsewhere"}, "cannot name a file"),
    ],
)
def test_what_is_wrong_is_said_before_the_run(changes: dict[str, str], problem: str) -> None:
    good = {"steps": "4", "cfg": "1", "sizes": "512x512", "name": "a", "other_samplers": "heun"}
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
        ({"sampler": "dpm_adaptive"}, "dpm_adaptive"),
        ({"prompts": ("one",)}, "at least two"),
        ({"reward": Brightness(), "other_reward_2": Brightness()}, "a name of its own"),
    ):
        with pytest.raises(ValueError, match=problem):
            evaluate(inputs, **{"reward": reward, **change})


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
