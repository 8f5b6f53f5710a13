"""Guiders, and nodes that guide in a way of their own, together with a preset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from comfy_extras import (
    nodes_apg,
    nodes_cfg,
    nodes_custom_sampler,
    nodes_eps,
    nodes_fresca,
    nodes_mahiro,
    nodes_model_advanced,
    nodes_perpneg,
    nodes_slg,
    nodes_tcfg,
)
from torch import Tensor

from .combinations import (
    KINDS,
    SCALE,
    SIGMAS,
    apply,
    assert_alike,
    assert_combines,
    assert_different,
    call,
    encode,
    folded_members,
    make_preset,
    sample,
)
from .tiny_patchers import make_clip, make_model

pytestmark = pytest.mark.oldest


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


def advanced(guider: Any, seed: int = 3) -> Tensor:
    """SamplerCustomAdvanced."""
    samples: Tensor = call(
        nodes_custom_sampler.SamplerCustomAdvanced,
        noise=call(nodes_custom_sampler.RandomNoise, noise_seed=seed),
        guider=guider,
        sampler=call(nodes_custom_sampler.KSamplerSelect, sampler_name="euler"),
        sigmas=SIGMAS,
        latent_image={"samples": torch.zeros(2, 16, 8, 8)},
    )["samples"]
    return samples


def guider_of(name: str, model: ModelPatcher, clip: CLIP, cfg: float = SCALE) -> Any:
    """A guider from its node, with prompts."""
    one, two, empty = (encode(clip, text) for text in ("a red circle", "a blue square", ""))
    found = nodes_custom_sampler
    if name == "BasicGuider":
        return call(found.BasicGuider, model=model, conditioning=one)
    if name == "CFGGuider":
        return call(found.CFGGuider, model=model, positive=one, negative=empty, cfg=cfg)
    if name == "PerpNegGuider":
        settings = {"cfg": cfg, "neg_scale": 0.8, "empty_conditioning": empty}
        prompts = {"positive": one, "negative": two}
        return call(nodes_perpneg.PerpNegGuider, model=model, **prompts, **settings)
    style = {"style": name.partition(" ")[2]}
    prompts = {"cond1": one, "cond2": two, "negative": empty}
    scales = {"cfg_conds": cfg, "cfg_cond2_negative": 2.0}
    return call(found.DualCFGGuider, model=model, **prompts, **scales, **style)


GUIDERS = ("BasicGuider", "DualCFGGuider regular", "DualCFGGuider nested", "PerpNegGuider")


@pytest.mark.parametrize("kind", ["single", "ensemble"])
@pytest.mark.parametrize("name", ["CFGGuider", *GUIDERS])
def test_every_guider_guides_the_presets_predictions(
    model: ModelPatcher, clip: CLIP, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = make_preset(model, kind)
    with folded_members(model, preset, monkeypatch):
        expected = advanced(guider_of(name, model, clip))
    found = advanced(guider_of(name, apply(model, preset), clip))
    assert_alike(found, expected)
    assert_different(found, advanced(guider_of(name, model, clip)))


@pytest.mark.parametrize("cfg", [1.0, 6.0])
def test_the_cfg_guider_guides_at_the_presets_scale(
    model: ModelPatcher, clip: CLIP, cfg: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = make_preset(model, "guided")
    with folded_members(model, preset, monkeypatch):
        expected = advanced(guider_of("CFGGuider", model, clip))
    guider = guider_of("CFGGuider", apply(model, preset), clip, cfg)
    assert_alike(advanced(guider), expected)
    assert guider.cfg == cfg  # ComfyUI keeps a node's output: it may serve again


@pytest.mark.parametrize("name", GUIDERS)
def test_a_guided_preset_refuses_other_guiders(model: ModelPatcher, clip: CLIP, name: str) -> None:
    guider = guider_of(name, apply(model, make_preset(model, "guided")), clip)
    with pytest.raises(ValueError, match="use CFGGuider or KSampler"):
        advanced(guider)


def picture(clip: CLIP) -> Any:
    positive, negative = encode(clip, "a red circle"), encode(clip, "a blue square")
    return lambda model, cfg: sample(model, positive, negative, cfg)


SKIPPED = {"double_layers": "0", "single_layers": "1", "start_percent": 0.0, "end_percent": 0.9}


@pytest.mark.parametrize("kind", KINDS)
def test_skip_layer_guidance_compares_with_the_presets_prediction(
    model: ModelPatcher, clip: CLIP, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def combine(m: ModelPatcher) -> ModelPatcher:
        return call(
            nodes_slg.SkipLayerGuidanceDiT, model=m, scale=2.0, rescaling_scale=0.3, **SKIPPED
        )

    assert_combines(model, kind, combine, picture(clip), monkeypatch)


@pytest.mark.parametrize("kind", KINDS)
def test_simple_skip_layer_guidance_skips_in_the_negative_prediction(
    model: ModelPatcher, clip: CLIP, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def combine(m: ModelPatcher) -> ModelPatcher:
        return call(nodes_slg.SkipLayerGuidanceDiTSimple, model=m, **SKIPPED)

    assert_combines(model, kind, combine, picture(clip), monkeypatch)


FORMULAS = {
    "APG": (nodes_apg.APG, {"eta": 0.5, "norm_threshold": 6.0, "momentum": -0.5}),
    "CFGZeroStar": (nodes_cfg.CFGZeroStar, {}),
    "CFGNorm": (nodes_cfg.CFGNorm, {"strength": 0.9}),
    "Mahiro": (nodes_mahiro.Mahiro, {}),
    "TCFG": (nodes_tcfg.TCFG, {}),
    "FreSca": (nodes_fresca.FreSca, {"scale_low": 0.8, "scale_high": 1.4, "freq_cutoff": 2}),
    "Epsilon Scaling": (nodes_eps.EpsilonScaling, {"scaling_factor": 1.05}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORMULAS)
def test_what_changes_guidance_before_or_after_it(
    model: ModelPatcher, clip: CLIP, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def combine(m: ModelPatcher) -> ModelPatcher:
        node, settings = FORMULAS[name]
        return call(node, model=m, **settings)

    assert_combines(model, kind, combine, picture(clip), monkeypatch)


def own_formulas(clip: CLIP) -> dict[str, Any]:
    return {
        "RescaleCFG": lambda m: call(nodes_model_advanced.RescaleCFG, model=m, multiplier=0.7),
        "PerpNeg": lambda m: call(
            nodes_perpneg.PerpNeg, model=m, empty_conditioning=encode(clip, ""), neg_scale=0.8
        ),
    }


@pytest.mark.parametrize("kind", ["single", "ensemble"])
@pytest.mark.parametrize("name", ["RescaleCFG", "PerpNeg"])
def test_a_guidance_formula_gets_the_presets_predictions(
    model: ModelPatcher, clip: CLIP, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_combines(model, kind, own_formulas(clip)[name], picture(clip), monkeypatch)


@pytest.mark.parametrize("name", ["RescaleCFG", "PerpNeg"])
def test_a_guided_preset_refuses_other_formulas(model: ModelPatcher, clip: CLIP, name: str) -> None:
    preset, combine = make_preset(model, "guided"), own_formulas(clip)[name]
    with pytest.raises(ValueError, match=r"CFG formula .* remove that node"):
        apply(combine(model), preset)
    with pytest.raises(ValueError, match=r"CFG formula .* remove that node"):
        picture(clip)(combine(apply(model, preset)), SCALE)
