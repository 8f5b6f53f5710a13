"""Normalized Attention Guidance, whose patch mixes both prompts' attention in one batch.

v0.3.64 does not have it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from torch import Tensor

from comfyui_calibri.calibri.presets import Member

from .combinations import (
    SCALE,
    apply,
    assert_alike,
    assert_combines,
    assert_different,
    call,
    encode,
    make_preset,
    sample,
)
from .tiny_patchers import make_clip, make_model


@pytest.fixture(autouse=True)
def inference() -> Any:
    """Nodes run in ComfyUI under inference mode."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> CLIP:
    return make_clip(Path(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def model() -> ModelPatcher:
    return make_model("flux")


def nag(model: ModelPatcher) -> ModelPatcher:
    from comfy_extras.nodes_nag import NAGuidance

    settings = {"nag_scale": 4.0, "nag_alpha": 0.5, "nag_tau": 1.5}
    patched: ModelPatcher = call(NAGuidance, model=model, **settings)
    return patched


def picture(clip: CLIP, model: ModelPatcher, cfg: float) -> Tensor:
    return sample(model, encode(clip, "a red circle"), encode(clip, "a blue square"), cfg)


@pytest.mark.parametrize("kind", ["single", "ensemble"])
def test_normalized_attention_guidance_sees_both_prompts(
    model: ModelPatcher, clip: CLIP, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_combines(model, kind, nag, lambda m, cfg: picture(clip, m, cfg), monkeypatch)


def test_normalized_attention_guidance_sees_both_members_of_a_guided_preset(
    model: ModelPatcher, clip: CLIP
) -> None:
    """Of equal members and plain weights, so that a single preset under plain guidance judges."""
    guided, single = make_preset(model, "guided"), make_preset(model, "single")
    coefficients = single.members[0].coefficients
    members = (Member(coefficients, SCALE), Member(coefficients, 1.0 - SCALE))
    equal = replace(guided, members=members)
    expected = picture(clip, apply(nag(model), single), SCALE)
    for calibrated in (apply(nag(model), equal), nag(apply(model, equal))):
        assert_alike(picture(clip, calibrated, 1.0), expected)
    assert_different(expected, picture(clip, apply(model, equal), 1.0))
