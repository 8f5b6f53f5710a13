"""Official checkpoints as presets and back: the same meaning, or a sentence why not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from comfyui_calibri.calibri.backbones import Backbone, Tap, read_backbone
from comfyui_calibri.calibri.coefficients import coefficient_space
from comfyui_calibri.calibri.official import (
    OfficialCheckpointError,
    OfficialLayout,
    dead_indices,
    read_layout,
)
from comfyui_calibri.calibri.official_file import OfficialCheckpoint
from comfyui_calibri.calibri.official_preset import (
    checkpoint_of_preset,
    describe_checkpoint,
    fit_to_model,
    preset_of_checkpoint,
)
from comfyui_calibri.calibri.presets import (
    Guidance,
    Member,
    Preset,
    check_preset,
    load_preset,
    save_preset,
)
from comfyui_calibri.demo.model import Flux, FluxConfig


def checkpoint_for(layout: OfficialLayout, weights: tuple[float, ...]) -> OfficialCheckpoint:
    """Coefficients that are all different and exact in float32, and these weights."""
    count = layout.total - layout.members
    coefficients = tuple(-1.0 + (i + 1) / 128 for i in range(count))
    return OfficialCheckpoint(layout.shapes, (*coefficients, *weights), step=60)


FLUX = {"double": 2, "single": 3}
LAYOUTS = [
    (OfficialLayout("flux", "block", 1, FLUX), (1.25,)),
    (OfficialLayout("flux", "layer", 2, FLUX), (0.75, 0.5)),
    (OfficialLayout("flux", "gate", 3, FLUX), (1.0, 0.5, -0.25)),
    (OfficialLayout("sd3", "gate", 1, {"joint": 3}), (1.0,)),
    (OfficialLayout("sd3", "gate", 2, {"joint": 4}, (0, 1)), (7.0, -6.0)),
    (OfficialLayout("qwen-image", "gate", 2, {"block": 3}), (4.0, -3.0)),
]


@pytest.mark.parametrize(("layout", "weights"), LAYOUTS, ids=str)
def test_import_export_import(
    tmp_path: Path, layout: OfficialLayout, weights: tuple[float, ...]
) -> None:
    """Through the preset's file too; only what the official code ignores is 1 afterwards."""
    checkpoint = checkpoint_for(layout, weights)
    preset = preset_of_checkpoint(checkpoint)
    assert (preset.family, preset.granularity) == (layout.family, layout.granularity)
    assert preset.blocks == layout.blocks
    assert tuple(member.weight for member in preset.members) == weights
    save_preset(tmp_path / "a.safetensors", preset)
    assert load_preset(tmp_path / "a.safetensors") == preset
    exported = checkpoint_of_preset(load_preset(tmp_path / "a.safetensors"))
    assert exported.shapes == checkpoint.shapes
    dead = dead_indices(layout)
    expected = [1.0 if i in dead else value for i, value in enumerate(checkpoint.solution)]
    assert list(exported.solution) == expected
    assert preset_of_checkpoint(exported).members == preset.members


@pytest.mark.parametrize(
    ("family", "blocks", "count", "members", "guided"),
    [
        ("sd3", {"joint": 3}, 2, "auto", True),
        ("qwen-image", {"block": 3}, 2, "auto", True),
        ("flux", FLUX, 2, "auto", False),
        ("sd3", {"joint": 3}, 1, "auto", False),
        ("sd3", {"joint": 3}, 3, "auto", False),
        ("sd3", {"joint": 3}, 2, "ensemble", False),
        ("flux", FLUX, 2, "cfg", True),
    ],
)
def test_two_members_are_guidance_where_the_official_code_runs_them_so(
    family: str, blocks: dict[str, int], count: int, members: str, guided: bool
) -> None:
    checkpoint = checkpoint_for(OfficialLayout(family, "gate", count, blocks), (1.0,) * count)
    preset = preset_of_checkpoint(checkpoint, members)
    assert (preset.guidance is not None) == guided
    if preset.guidance is not None:
        assert preset.guidance.rescale == (family == "qwen-image")


def test_guidance_needs_two_members() -> None:
    checkpoint = checkpoint_for(OfficialLayout("sd3", "gate", 3, {"joint": 3}), (1.0,) * 3)
    with pytest.raises(OfficialCheckpointError, match=r"has 3 members but .* has two"):
        preset_of_checkpoint(checkpoint, "cfg")


@pytest.mark.parametrize(
    ("family", "weights", "scale"),
    [
        ("sd3", (7.0, -6.0), 7.0),
        ("sd3", (1.0, 0.0), 1.0),
        ("sd3", (7.5, -5.5), 7.0),  # as far from [7, −6] in both weights
        ("qwen-image", (8.0, -6.0), 4.0),  # rescaled, so the same as [4, −3]
        ("qwen-image", (3.0, -4.0), 4.0),  # its sum is no guidance: as in SD3
    ],
)
def test_where_guidance_began(family: str, weights: tuple[float, ...], scale: float) -> None:
    blocks = {"joint" if family == "sd3" else "block": 3}
    checkpoint = checkpoint_for(OfficialLayout(family, "gate", 2, blocks), weights)
    found = preset_of_checkpoint(checkpoint).guidance
    assert found == Guidance(scale, rescale=family == "qwen-image")
    told = preset_of_checkpoint(checkpoint, cfg=5.0).guidance
    assert told == Guidance(5.0, rescale=family == "qwen-image")


def sd3_backbone(second: tuple[int, ...], blocks: int = 4) -> Backbone:
    """As the map reads an SD3.5."""
    taps = []
    for i in range(blocks):
        image = ["attention", "mlp"] + ["attention2"] * (i in second)
        taps += [Tap("joint", i, branch, "image", "", 0, 1) for branch in image]
        text = ["attention", "mlp"] * (i < blocks - 1)
        taps += [Tap("joint", i, branch, "text", "", 0, 1) for branch in text]
    return Backbone("sd3", {"joint": blocks}, tuple(taps))


@pytest.mark.parametrize("second", [(0, 1), (1, 3)])
def test_the_model_says_which_blocks_have_a_second_attention(second: tuple[int, ...]) -> None:
    checkpoint = checkpoint_for(OfficialLayout("sd3", "gate", 1, {"joint": 4}, (0, 1)), (1.0,))
    backbone = sd3_backbone(second)
    preset = fit_to_model(checkpoint, preset_of_checkpoint(checkpoint), backbone)
    coefficients = preset.members[0].coefficients
    assert tuple(coefficients) == coefficient_space(backbone, "gate").names
    assert [coefficients[f"joint.{i}.attention2.image"] for i in second] == list(
        checkpoint.solution[14:16]
    )
    assert checkpoint_of_preset(preset).solution == checkpoint.solution


def test_models_that_do_not_fit() -> None:
    checkpoint = checkpoint_for(OfficialLayout("sd3", "gate", 1, {"joint": 4}, (0, 1)), (1.0,))
    preset = preset_of_checkpoint(checkpoint)
    torch.manual_seed(0)
    flux = read_backbone(Flux(FluxConfig(double_blocks=1, single_blocks=2)))
    for backbone, problem in (
        (flux, "is for sd3 with 4 joint but the model is flux with 1 double and 2 single"),
        (sd3_backbone((0, 1), 3), "with 4 joint but the model is sd3 with 3 joint"),
        (sd3_backbone(()), "second attention in 2 blocks but the model has 0 of them"),
    ):
        with pytest.raises(OfficialCheckpointError, match=problem):
            fit_to_model(checkpoint, preset, backbone)


def test_a_real_model_takes_it() -> None:
    torch.manual_seed(0)
    backbone = read_backbone(Flux(FluxConfig(double_blocks=2, single_blocks=3)))
    checkpoint = checkpoint_for(*LAYOUTS[0])
    preset = fit_to_model(checkpoint, preset_of_checkpoint(checkpoint), backbone)
    _, vectors = check_preset(preset, backbone)
    assert tuple(vectors[0]) == checkpoint.solution[:-1]


def qwen(granularity: str, coefficients: dict[str, float]) -> Preset:
    return Preset("qwen-image", {"block": 2}, granularity, (Member(coefficients),))


def test_coarser_coefficients_stand_for_their_gates() -> None:
    layer = {"block.0.attention": 0.5, "block.0.mlp": 1.0, "block.1.attention": 0.25}
    exported = checkpoint_of_preset(qwen("layer", layer | {"block.1.mlp": 1.0}))
    assert exported.shapes == {"total": 9, "n_models": 1, "n_blocks": 2}
    assert exported.solution == (0.5, 0.5, 1.0, 1.0, 0.25, 1.0, 1.0, 1.0, 1.0)
    sd3 = {"joint.0.attention": 0.5, "joint.0.mlp": 0.75, "joint.0.attention2": 2.0}
    sd3 |= {"joint.1.attention": -0.5, "joint.1.mlp": 1.5}
    exported = checkpoint_of_preset(Preset("sd3", {"joint": 2}, "layer", (Member(sd3, 0.5),)))
    assert exported.solution == (0.5, 0.75, -0.5, 1.5, 0.5, 0.75, 2.0, 0.5)
    assert read_layout(exported.shapes).second_attentions == 1


def test_what_the_official_code_would_ignore_is_dropped_only_when_told() -> None:
    preset = qwen("block", {"block.0": 0.5, "block.1": 0.25})
    with pytest.raises(OfficialCheckpointError, match=r"'block\.0\.mlp\.image' and 2 more.*allow"):
        checkpoint_of_preset(preset)
    exported = checkpoint_of_preset(preset, drop_ignored=True)
    assert exported.solution == (0.5, 0.5, 1.0, 1.0, 0.25, 1.0, 1.0, 1.0, 1.0)


SINGLE = {"double.0": 1.0, "single.0": 1.0}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"family": "lumina2", "blocks": {"layer": 2}}, "lumina2 with 2 layer, which the official"),
        ({"blocks": {"double": 1}}, "flux with 1 double, which the official code does not know"),
        ({"family": "sd3", "blocks": {"joint": 2}}, "sd3 by block, which does not say which"),
        ({"members": (Member({"double.0": 1.0}),)}, r"lacks the coefficient 'single\.0'"),
        ({"members": (Member(SINGLE | {"double.1": 1.0}),)}, r"'double\.1', for which"),
        ({"members": (Member(SINGLE | {"double.0": 2.5}),)}, r"'double\.0' is 2\.5, outside"),
    ],
)
def test_presets_the_official_code_cannot_run(changes: dict[str, Any], problem: str) -> None:
    preset = Preset("flux", {"double": 1, "single": 1}, "block", (Member(SINGLE),))
    assert checkpoint_of_preset(preset).solution == (1.0, 1.0, 1.0)
    with pytest.raises(OfficialCheckpointError, match=problem):
        checkpoint_of_preset(replace(preset, **changes))


def test_description() -> None:
    layout, weights = LAYOUTS[-1]
    checkpoint = replace(checkpoint_for(layout, weights), train_best=0.5, val=0.25)
    assert describe_checkpoint(checkpoint, preset_of_checkpoint(checkpoint)) == (
        "qwen-image with 3 block, by gate: 24 coefficients, 14 of which do nothing in the official "
        "code and stay without effect. Step 60, best training reward 0.5, validation reward 0.25. "
        "Two members for prompt and negative prompt with the weights 4, -3, in place of CFG at 4."
    )
    checkpoint = replace(checkpoint_for(*LAYOUTS[1]), step=None)
    assert describe_checkpoint(checkpoint, preset_of_checkpoint(checkpoint)) == (
        "flux with 2 double and 3 single, by layer: 14 coefficients. An ensemble of 2 members with "
        "the weights 0.75, 0.5."
    )
