"""The Calibrate node over several members: ensembles, guided members, and starts from presets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import comfy.model_management
import numpy as np
import pytest
import torch
from comfy_api.latest import io
from PIL import Image

from comfyui_calibri.calibri.coefficients import coefficient_space
from comfyui_calibri.calibri.ensemble_space import ensemble_space
from comfyui_calibri.calibri.evaluation import Sample
from comfyui_calibri.calibri.journal import Journal
from comfyui_calibri.calibri.presets import Guidance, Preset, load_preset
from comfyui_calibri.nodes.apply import CalibriApply
from comfyui_calibri.nodes.calibrate import CalibriCalibrate
from comfyui_calibri.nodes.patching import backbone_of
from comfyui_calibri.nodes.sampling import ComfyEvaluator, SamplerSettings

from .test_nodes_calibrate import Stops
from .test_nodes_ensemble import make_preset
from .tiny_fixtures import inference  # noqa: F401
from .tiny_inputs import calibration_inputs
from .tiny_patchers import Brightness, make_model, sample

pytestmark = [pytest.mark.oldest, pytest.mark.usefixtures("output")]

PROMPTS = ("a red circle", "two green stars")
NEGATIVE = "a pink ring"
# How the three kinds of run are asked for.
ENSEMBLE = {"members": 2}
GUIDED = {"guided_members": True, "cfg": 4.0, "negative": NEGATIVE}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small run: 2 images for each of 16 candidates in 2 generations."""
    with torch.inference_mode():
        return calibration_inputs(Path(tmp_path_factory.mktemp("clip")), "sd3")


def calibrate(inputs: dict[str, Any], **changes: Any) -> io.NodeOutput:
    return CalibriCalibrate.execute(**{**inputs, **changes})


def runs(output: Path) -> list[str]:
    return sorted(path.name for path in (output / "calibri" / "runs").iterdir())


@pytest.mark.parametrize("kind", [ENSEMBLE, GUIDED], ids=["ensemble", "guided"])
def test_run_leaves_a_preset_of_its_members(
    inputs: dict[str, Any], output: Path, kind: dict[str, Any]
) -> None:
    result = calibrate(inputs, **kind, keep_anyway=True)
    preset, report = result.args
    assert len(preset.members) == 2
    assert preset.guidance == (Guidance(4.0) if kind is GUIDED else None)
    folder = output / "calibri" / "trial"
    saved = load_preset(folder / "preset.safetensors")
    assert saved.guidance == preset.guidance
    assert [m.weight for m in saved.members] == pytest.approx([m.weight for m in preset.members])
    assert report.shape[-1] == 3
    for shown in result.ui["images"]:
        Image.open(output / shown["subfolder"] / shown["filename"]).verify()
    numbers = json.loads((folder / "report.json").read_text())
    assert numbers["plain_weights"] == ([4.0, -3.0] if kind is GUIDED else [1.0, 0.0])
    assert "weights" in result.ui["text"][0]
    # The preset goes straight into Apply Calibri.
    CalibriApply.execute(inputs["model"], preset, 1.0, 0.0, 1.0)


@pytest.mark.parametrize("profile", ["default", "paper"])
@pytest.mark.parametrize("kind", [ENSEMBLE, GUIDED], ids=["ensemble", "guided"])
def test_cancelled_run_goes_on_as_if_it_had_not_been(
    inputs: dict[str, Any], output: Path, kind: dict[str, Any], profile: str
) -> None:
    settings = {**inputs, **kind, "profile": profile, "generations": 1}
    whole = calibrate(settings, run_name="whole").args[0]
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        calibrate(settings, reward=Stops(3))
    resumed = calibrate(settings).args[0]
    assert runs(output) == ["trial", "whole"]
    assert resumed.members == whole.members
    assert resumed.rewards == whole.rewards


def test_members_guidance_and_start_make_runs_of_their_own(
    inputs: dict[str, Any], output: Path
) -> None:
    settings = {**inputs, "generations": 1, "cfg": 2.0, "granularity": "gate"}
    first, second = (make_preset(inputs["model"], [1.0], seed=seed) for seed in (1, 2))
    others = [
        {},
        {"members": 2},
        {"guided_members": True},
        {"start_from": first},
        {"start_from": second},
        {"start_from": first, "members": 2},
    ]
    for number, change in enumerate(others, 1):
        calibrate(settings, **change)
        assert len(runs(output)) == number
    calibrate(settings, start_from=make_preset(inputs["model"], [1.0], seed=2))
    assert len(runs(output)) == len(others)


def test_warm_start_begins_at_the_preset(inputs: dict[str, Any], output: Path) -> None:
    preset = calibrate(inputs, generations=4).args[0]
    grown = calibrate(inputs, generations=1, members=2, start_from=preset, run_name="grown").args[0]
    assert len(grown.members) == 2
    start = list(preset.members[0].coefficients.values())
    with Journal.read(output / "calibri" / "runs" / "grown" / "journal.sqlite") as journal:
        (validation, *_) = journal.evaluations("validation")
    np.testing.assert_allclose(validation.vectors[1], [*start, *start, 0.5, 0.5], rtol=1e-6)
    # The start draws what the preset draws, so it is worth the same on the same images.
    with Journal.read(output / "calibri" / "runs" / "trial" / "journal.sqlite") as journal:
        last = journal.evaluations("confirmation")[0].vectors[-1]
    assert start == last.tolist()
    coefficients = coefficient_space(backbone_of(inputs["model"]), "layer")
    rewards = [
        judge(inputs, space).run(((0, 0), (0, 1)), vector[None], BUCKET)
        for space, vector in (
            (ensemble_space(coefficients), last),
            (ensemble_space(coefficients, 2), validation.vectors[1]),
        )
    ]
    np.testing.assert_allclose(rewards[0], rewards[1], rtol=1e-5)


BUCKET = tuple(Sample(position, 100 + position) for position in range(2))


def judge(inputs: dict[str, Any], space: Any, **changes: Any) -> ComfyEvaluator:
    settings = {
        **{name: inputs[name] for name in SamplerSettings.__dataclass_fields__},
        **changes,
        "steps": 3,
        "width": 64,
        "height": 64,
    }
    return ComfyEvaluator(
        inputs["model"],
        inputs["clip"],
        inputs["vae"],
        Brightness(),
        space,
        SamplerSettings(**settings),
        PROMPTS,
    )


@pytest.mark.parametrize("family", ["flux", "sd3"])
@pytest.mark.parametrize(
    ("members", "guidance", "weights", "cfg"),
    [
        (2, None, [0.7, 0.4], 1.0),
        (3, None, [0.7, 0.0, -0.2], 2.0),
        (2, Guidance(4.0), [4.4, -3.1], 4.0),
    ],
)
def test_a_candidate_draws_what_its_preset_draws(
    inputs: dict[str, Any],
    family: str,
    members: int,
    guidance: Guidance | None,
    weights: list[float],
    cfg: float,
) -> None:
    """Rows of many candidates and prompts, against KSampler on Apply Calibri's model."""
    inputs = {**inputs, "model": make_model(family), "guidance": None}
    model, backbone = inputs["model"], backbone_of(inputs["model"])
    space = ensemble_space(coefficient_space(backbone, "gate"), members, guidance)
    random = np.random.default_rng(5)
    vectors = space.identity + 0.2 * random.standard_normal((3, len(space.names)))
    vectors[1, -members:] = weights
    found = judge(inputs, space, cfg=cfg).images(vectors, BUCKET)[1]
    preset = Preset(
        backbone.family, backbone.blocks, "gate", space.preset_members(vectors[1]), guidance
    )
    applied = CalibriApply.execute(model, preset, 1.0, 0.0, 1.0).args[0]
    plain = []
    for position, prompt in enumerate(PROMPTS):
        settings = {"seed": 100 + position, "prompt": prompt, "cfg": cfg}
        latent = sample(applied, inputs["clip"], **settings)
        expected = inputs["vae"].decode(latent)[0].numpy() * 255
        assert np.abs(found[position] - expected).max() < 1.0
        plain.append(inputs["vae"].decode(sample(model, inputs["clip"], **settings))[0].numpy())
    assert np.abs(found - np.stack(plain) * 255).max() > 3


@pytest.mark.parametrize(("kind", "cfg"), [(ENSEMBLE, 1.0), (GUIDED, 4.0)])
def test_the_identity_draws_what_the_plain_model_draws(
    inputs: dict[str, Any], kind: dict[str, Any], cfg: float
) -> None:
    guidance = Guidance(cfg) if kind is GUIDED else None
    coefficients = coefficient_space(backbone_of(inputs["model"]), "block")
    space = ensemble_space(coefficients, 2, guidance)
    found = judge(inputs, space, cfg=cfg).images(space.identity[None], BUCKET)[0]
    for position, prompt in enumerate(PROMPTS):
        latent = sample(
            inputs["model"], inputs["clip"], seed=100 + position, prompt=prompt, cfg=cfg
        )
        expected = inputs["vae"].decode(latent)[0].numpy() * 255
        assert np.abs(found[position] - expected).max() < 1.0


@pytest.mark.parametrize(
    ("change", "mend"),
    [
        ({"guided_members": True}, "cfg is 1.* set cfg above 1"),
        ({"guided_members": True, "cfg": 12.0}, "at most 10"),
        ({"guided_members": True, "cfg": 3.0, "members": 3}, "set members to 2"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_sampling(
    inputs: dict[str, Any], output: Path, change: dict[str, Any], mend: str
) -> None:
    with pytest.raises(ValueError, match=mend):
        calibrate(inputs, **change)
    assert not (output / "calibri").exists()


def test_a_model_with_an_ensemble_on_it_is_refused_before_sampling(
    inputs: dict[str, Any], output: Path
) -> None:
    preset = calibrate(inputs, generations=1, members=2).args[0]
    model = CalibriApply.execute(inputs["model"], preset, 1.0, 0.0, 1.0).args[0]
    with pytest.raises(ValueError, match="remove one Apply Calibri"):
        calibrate(inputs, model=model, members=2, run_name="second")
    assert runs(output) == ["trial"]


def test_inputs_of_older_prompts_still_run(inputs: dict[str, Any]) -> None:
    schema = CalibriCalibrate.define_schema()
    new = {"members", "guided_members", "start_from", "preview_vae"}
    new |= {"settings", "stop_early", "keep_anyway"}
    assert all(given.optional for given in schema.inputs if given.id in new)
    # Widgets are saved by position: the new ones come last.
    assert {given.id for given in schema.inputs[-len(new) :]} == new
