"""Presets made from presets: edited, blended, converted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from comfyui_calibri.calibri.coefficients import coefficient_space
from comfyui_calibri.calibri.compact_text import CompactTextError, parse_rules
from comfyui_calibri.calibri.editing import (
    EditingError,
    blend_presets,
    convert_preset,
    edit_preset,
    plain_preset,
    preset_text,
)
from comfyui_calibri.calibri.preset_metadata import Guidance, Member, Preset, RewardChange
from comfyui_calibri.calibri.presets import PresetError, load_preset, save_preset

from .exact_run import COEFFICIENTS

BACKBONE = COEFFICIENTS.backbone
PLAIN = plain_preset(BACKBONE, "gate", "flux.safetensors", "0" * 32)
FOUND = replace(
    PLAIN,
    title="Found",
    licence="CC0",
    sampling={"steps": 15, "cfg": 1.0},
    rewards=(RewardChange("r", 0.0, 1.0, 0.5, 1.5, 8, True),),
)


def edited(rules: str, preset: Preset = PLAIN) -> Preset:
    return edit_preset(preset, parse_rules(rules))


def random_preset(seed: int, granularity: str = "gate", members: int = 1) -> Preset:
    space = coefficient_space(BACKBONE, granularity)
    random = np.random.default_rng(seed)
    rows = random.uniform(-1, 2, (members, len(space.names))).astype(np.float32).astype(float)
    made = tuple(Member(space.named(row), 1.0 if members == 1 else 0.5) for row in rows)
    return replace(FOUND, granularity=granularity, members=made, title=f"random {seed}")


def test_later_rules_win_and_factors_multiply_what_is_there() -> None:
    (member,) = edited("double.*=0.5, double.1=0.8, double.1.mlp *= 0.5, *.0 *= 2").members
    value = member.coefficients
    assert value["double.0.mlp.text"] == 1.0
    assert value["double.1.attention.image"] == float(np.float32(0.8))
    assert value["double.1.mlp.image"] == float(np.float32(0.4))
    assert value["single.0.fused.joint"] == 2.0
    assert value["single.1.fused.joint"] == 1.0


def test_what_was_measured_is_dropped_and_the_rest_told() -> None:
    made = edited("double.0=0.5", FOUND)
    assert made.rewards == ()
    assert (made.title, made.origin) == ("Found, edited", "'Found' by double.0=0.5")
    assert (made.licence, made.sampling) == (FOUND.licence, FOUND.sampling)
    assert edit_preset(FOUND, ()) is FOUND
    assert edited("double.0*=1, single=1", FOUND) is FOUND  # nothing changed
    assert len(edited(",".join(["double.0.attention.image=0.5"] * 100), FOUND).origin) == 1000


def test_bounds_are_kept_and_named() -> None:
    with pytest.raises(CompactTextError, match=r"'single \*= 3' makes single.0.fused.joint 3, out"):
        edited("single *= 3")
    assert edited("single *= 3, single=2").members[0].coefficients["single.0.fused.joint"] == 2.0


@pytest.mark.parametrize("number", ["1_0", "١", "nan", "inf", "0x1", "1e", "."])
def test_only_plain_numbers_are_numbers(number: str) -> None:
    with pytest.raises(CompactTextError, match="where a number must be"):
        edited(f"double.0={number}")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rule", ["double.0=1e39", "double.0*=1e300"])
def test_numbers_beyond_float32_are_out_of_bounds(rule: str) -> None:
    with pytest.raises(CompactTextError, match="outside -1…2"):
        edited(rule)


def test_a_weight_without_a_member_needs_several() -> None:
    with pytest.raises(CompactTextError, match="has one member, which needs none"):
        edited("weight=0.5")
    assert edited("member1.weight=0.5").members[0].weight == 0.5


def test_an_ensembles_members_are_edited_together_or_alone() -> None:
    ensemble = replace(FOUND, members=(Member(PLAIN.members[0].coefficients, 0.5),) * 2)
    one, two = edited(
        "double.0=0.5, member2.single=0.8, member2.weight*=1.5, member1=0.9", ensemble
    ).members
    assert set(one.coefficients.values()) == {float(np.float32(0.9))}
    assert two.coefficients["double.0.mlp.text"] == 0.5
    assert two.coefficients["single.2.fused.joint"] == float(np.float32(0.8))
    assert (one.weight, two.weight) == (0.5, 0.75)
    with pytest.raises(CompactTextError, match="is about member 3, and the preset has 2"):
        edited("member3.single=1", ensemble)
    with pytest.raises(CompactTextError, match=r"makes member1.weight 11, outside -10…10"):
        edited("member1.weight=11", ensemble)


@pytest.mark.parametrize("members", [1, 2])
def test_a_preset_as_text_is_the_same_preset(members: int) -> None:
    preset = random_preset(3, "layer", members)
    ones = Member(plain_preset(BACKBONE, "layer").members[0].coefficients, 0.25)
    blank = replace(preset, members=(replace(ones, weight=1.0),) if members == 1 else (ones, ones))
    text = preset_text(preset)
    again = edited(text, blank)
    assert again.members == preset.members
    assert preset_text(again) == text
    assert text.startswith("# flux with 2 double and 3 single, granularity layer;")


def test_an_edited_preset_can_be_saved(tmp_path) -> None:
    made = edited("double.0=0.5, member1.weight=0.5", FOUND)
    save_preset(tmp_path / "made.safetensors", made)
    assert load_preset(tmp_path / "made.safetensors") == made


def test_a_blend_is_the_weighted_mean() -> None:
    one, two = random_preset(1), replace(random_preset(2), licence="MIT", sampling={"steps": 15})
    made = blend_presets([one, two], [1.0, 3.0])
    for name, value in made.members[0].coefficients.items():
        ends = one.members[0].coefficients[name], two.members[0].coefficients[name]
        assert value == pytest.approx(0.25 * ends[0] + 0.75 * ends[1], abs=1e-6)
    assert made.title == "0.25 × random 1 + 0.75 × random 2"
    assert (made.licence, made.sampling, made.rewards) == ("CC0; MIT", {"steps": 15}, ())
    assert made.fingerprint == one.fingerprint
    assert blend_presets([one, replace(two, fingerprint="f")], [1, 1]).fingerprint == ""
    assert blend_presets([one, one, one], [1, 1, 1]).members == one.members
    assert blend_presets([one, two], [0.0, 2.0]).members == two.members


def test_guided_members_are_blended_each_with_its_like() -> None:
    guidance = Guidance(3.0)
    one, two = (replace(random_preset(n, members=2), guidance=guidance) for n in (1, 2))
    made = blend_presets([one, two], [1.0, 1.0])
    for m in (0, 1):
        name = "single.0.fused.joint"
        ends = [preset.members[m].coefficients[name] for preset in (one, two)]
        assert made.members[m].coefficients[name] == pytest.approx(np.mean(ends), abs=1e-6)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (random_preset(1, "layer"), "granularity layer and the first one gate: bring it"),
        (replace(random_preset(1), blocks={"double": 9}), "blend presets of one model"),
        (replace(random_preset(1, members=2), guidance=Guidance(3.0)), "presets that guide alike"),
        (random_preset(1, members=2), "is an ensemble"),
    ],
)
def test_what_cannot_be_blended_is_refused(other: Preset, says: str) -> None:
    with pytest.raises(EditingError, match=says):
        blend_presets([random_preset(0), other], [1.0, 1.0])


def test_a_blend_without_weights_is_refused() -> None:
    with pytest.raises(EditingError, match="no weight above 0"):
        blend_presets([random_preset(0), random_preset(1)], [0.0, 0.0])


def test_a_finer_granularity_is_exact_and_keeps_what_was_measured() -> None:
    block = random_preset(5, "block")
    made = convert_preset(block, BACKBONE, "gate")
    assert (made.difference, made.branch) == (0.0, "")
    assert made.preset.granularity == "gate"
    assert made.preset.rewards == block.rewards
    for name, value in made.preset.members[0].coefficients.items():
        kind, index = name.split(".")[:2]
        assert value == block.members[0].coefficients[f"{kind}.{index}"]
    back = convert_preset(made.preset, BACKBONE, "block")
    assert back.branch == ""
    assert back.preset == block


def test_a_coarser_granularity_takes_means_and_says_how_far_off_it_is() -> None:
    preset = edited("double.1.mlp.image=0.6, double.1.mlp.text=1.2", FOUND)
    made = convert_preset(preset, BACKBONE, "layer")
    (member,) = made.preset.members
    assert member.coefficients["double.1.mlp"] == pytest.approx(0.9)
    assert member.coefficients["double.1.attention"] == 1.0
    assert made.difference == pytest.approx(0.3)
    assert made.branch.startswith("double.1.mlp.")
    assert made.preset.rewards == ()
    assert "from gate to layer" in made.preset.origin


def test_a_preset_of_another_model_is_not_converted() -> None:
    with pytest.raises(PresetError, match="but the model is"):
        convert_preset(replace(random_preset(1), blocks={"double": 9}), BACKBONE, "layer")
