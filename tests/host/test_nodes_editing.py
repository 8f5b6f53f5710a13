"""Edit, Blend and Convert: what they make draws what the coefficients say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP

from comfyui_calibri.calibri.presets import Preset
from comfyui_calibri.nodes.apply import CalibriApply
from comfyui_calibri.nodes.editing import CalibriBlendPresets, CalibriConvertPreset, CalibriEdit

from .tiny_fixtures import clip, inference, model  # noqa: F401
from .tiny_patchers import make_model, sample

pytestmark = pytest.mark.oldest


def edit(rules: str, granularity: str = "gate", **links: object) -> tuple[Preset, str]:
    preset, text = CalibriEdit.execute(granularity, rules, **links).args
    return preset, text


def drawn(model: ModelPatcher, clip: CLIP, preset: Preset) -> torch.Tensor:  # noqa: F811
    (applied,) = CalibriApply.execute(model, preset, 1.0, 0.0, 1.0).args
    return sample(applied, clip)


def test_an_edited_preset_draws_otherwise_and_its_text_makes_it_again(
    model: ModelPatcher,  # noqa: F811
    clip: CLIP,  # noqa: F811
) -> None:
    plain, text = edit("", model=model)
    assert text.startswith(f"# {plain.family} with ")
    picture = drawn(model, clip, plain)
    assert torch.equal(picture, sample(model, clip))
    made, text = edit("*.0.attention=0.5, *.1 *= 0.9", model=model)
    assert not torch.allclose(drawn(model, clip, made), picture)
    again, same = edit(text, model=model)
    assert (again.members, same) == (made.members, text)
    assert made.fingerprint == plain.fingerprint != ""
    # A preset is edited without its model, and keeps its granularity.
    more, _ = edit("*.0=1, *.1=1", "block", preset=made)
    assert more.granularity == "gate"
    assert torch.equal(drawn(model, clip, more), picture)


def test_a_finer_preset_and_a_blend_with_itself_draw_the_same(
    model: ModelPatcher,  # noqa: F811
    clip: CLIP,  # noqa: F811
) -> None:
    made, _ = edit("*.0=0.5", "block", model=model)
    (fine,) = CalibriConvertPreset.execute(made, model, "gate").args
    assert len(fine.members[0].coefficients) > len(made.members[0].coefficients)
    (blended,) = CalibriBlendPresets.execute(
        preset_1=fine, weight_1=1.0, preset_2=fine, weight_2=3.0, weight_3=1.0, weight_4=1.0
    ).args
    assert torch.equal(drawn(model, clip, blended), drawn(model, clip, made))


def test_what_does_not_fit_is_said_before_or_in_one_sentence() -> None:
    assert CalibriEdit.validate_inputs("double.0=0.5") is True
    assert CalibriEdit.validate_inputs(None) is True
    assert "rules: The rule 'double.0=x' has 'x'" in str(CalibriEdit.validate_inputs("double.0=x"))
    with pytest.raises(ValueError, match="neither a preset nor a model"):
        edit("double.0=1")
    flux = make_model()
    made, _ = edit("double.0=0.5", model=flux)
    with pytest.raises(ValueError, match=r"names are double\.0\.attention\.image"):
        edit("double.0.atention.image=1", preset=made)
    with pytest.raises(ValueError, match="but the model is"):
        edit("", preset=made, model=make_model("sd3"))
    with pytest.raises(ValueError, match="with Convert Calibri Preset"):
        CalibriBlendPresets.execute(preset_1=made, preset_2=replace(made, granularity="layer"))
