"""Ensembles and CFG presets through ComfyUI's sampling give what the official formulas give."""

from __future__ import annotations

from typing import Any

import comfy.samplers
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from torch import Tensor

from comfyui_calibri.calibri.coefficients import coefficient_space
from comfyui_calibri.calibri.presets import Guidance, Member, Preset
from comfyui_calibri.nodes.apply import CalibriApply
from comfyui_calibri.nodes.patching import backbone_of

from . import tiny_fixtures
from .folded import euler, folded, per_token_norm, velocity

pytestmark = pytest.mark.oldest

SIGMAS = torch.tensor([1.0, 0.8, 0.55, 0.3, 0.1, 0.0])
PROMPTS = ("a red circle", "a blue square")

clip, inference, model = tiny_fixtures.clip, tiny_fixtures.inference, tiny_fixtures.model


def make_preset(
    model: ModelPatcher, weights: list[float], guidance: Guidance | None = None, seed: int = 0
) -> Preset:
    """A preset of random members for this model."""
    backbone = backbone_of(model)
    space = coefficient_space(backbone, "gate")
    generator = torch.Generator().manual_seed(seed)
    members = []
    for weight in weights:
        values = torch.empty(len(space.names)).uniform_(0.5, 1.5, generator=generator)
        members.append(Member(dict(zip(space.names, values.tolist(), strict=True)), weight))
    return Preset(backbone.family, backbone.blocks, "gate", tuple(members), guidance=guidance)


def apply(model: ModelPatcher, preset: Preset, strength: float = 1.0, **window: float) -> Any:
    window = {"start_percent": 0.0, "end_percent": 1.0, **window}
    return CalibriApply.execute(model=model, preset=preset, strength=strength, **window).args[0]


def conditions(clip: CLIP) -> list[list[Any]]:
    return [
        clip.encode_from_tokens_scheduled(clip.tokenize(text), add_dict={"guidance": 3.5})
        for text in PROMPTS
    ]


def noise(rows: int = 2) -> Tensor:
    return torch.randn(rows, 16, 8, 8, generator=torch.Generator().manual_seed(3))


def sample(
    model: ModelPatcher, clip: CLIP, cfg: float = 1.0, sigmas: Tensor = SIGMAS, rows: int = 2
) -> Tensor:
    positive, negative = conditions(clip)
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    latent = torch.zeros(rows, 16, 8, 8)
    result: Tensor = guider.sample(
        noise(rows), latent, comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True
    )
    return result


def predictions(model: ModelPatcher, clip: CLIP, preset: Preset) -> list[list[Any]]:
    """The members' bare velocities, [member][positive, negative]."""
    space = coefficient_space(backbone_of(model), preset.granularity)
    found = []
    for member in preset.members:
        gains = space.expand(space.vector(member.coefficients)[None])[0]
        dit = folded(model.model, space.backbone, gains.tolist())
        found.append(
            [
                velocity(dit, model.model, text[0][0], text[0][1]["pooled_output"])
                for text in conditions(clip)
            ]
        )
    return found


def reference(model: ModelPatcher, predict: Any, sigmas: Tensor, rows: int = 2) -> Tensor:
    schedule = model.model.model_sampling
    x = schedule.noise_scaling(sigmas[0], noise(rows), torch.zeros(rows, 16, 8, 8))
    x = schedule.inverse_noise_scaling(sigmas[-1], euler(predict, x, sigmas.tolist()))
    return model.model.process_latent_out(x)


def assert_close(found: Tensor, expected: Tensor, relative: float) -> None:
    assert (found - expected).abs().max() <= relative * expected.abs().max()


@pytest.mark.parametrize("weights", [[0.7], [1.3, -0.4], [0.5, 0.0, 0.9]])
def test_an_ensemble_is_the_weighted_sum(
    model: ModelPatcher, clip: CLIP, weights: list[float]
) -> None:
    preset = make_preset(model, weights)
    members = predictions(model, clip, preset)

    def predict(x: Tensor, sigma: float) -> Tensor:
        return sum(w * m[0](x, sigma) for w, m in zip(weights, members, strict=True))

    calibrated = apply(model, preset)
    for sigmas, relative in ((SIGMAS[1:3], 1e-5), (SIGMAS, 1e-4)):
        expected = reference(model, predict, sigmas)
        assert_close(sample(calibrated, clip, sigmas=sigmas), expected, relative)


def test_an_ensemble_under_guidance_guides_the_sums(model: ModelPatcher, clip: CLIP) -> None:
    preset = make_preset(model, [0.8, 0.3])
    members = predictions(model, clip, preset)

    def predict(x: Tensor, sigma: float) -> Tensor:
        cond, uncond = (
            0.8 * members[0][k](x, sigma) + 0.3 * members[1][k](x, sigma) for k in (0, 1)
        )
        return uncond + 3.0 * (cond - uncond)

    expected = reference(model, predict, SIGMAS)
    assert_close(sample(apply(model, preset), clip, cfg=3.0), expected, 1e-4)


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("cfg", [1.0, 5.0])
def test_guidance_weights_stand_in_for_the_scale(
    model: ModelPatcher, clip: CLIP, rescale: bool, cfg: float
) -> None:
    weights = [4.5, -3.2]
    preset = make_preset(model, weights, Guidance(4.0, rescale))
    members = predictions(model, clip, preset)

    def predict(x: Tensor, sigma: float) -> Tensor:
        cond = members[0][0](x, sigma)
        guided = weights[0] * cond + weights[1] * members[1][1](x, sigma)
        if rescale:
            guided = guided * per_token_norm(cond) / per_token_norm(guided)
        return guided

    calibrated = apply(model, preset)
    for sigmas, relative in ((SIGMAS[1:3], 1e-5), (SIGMAS, 1e-4)):
        expected = reference(model, predict, sigmas)
        assert_close(sample(calibrated, clip, cfg, sigmas), expected, relative)


def test_strength_zero_of_a_guided_preset_is_plain_guidance(
    model: ModelPatcher, clip: CLIP
) -> None:
    preset = make_preset(model, [4.5, -3.2], Guidance(4.0))
    found = sample(apply(model, preset, strength=0.0), clip, cfg=1.0)
    assert_close(found, sample(model, clip, cfg=4.0), 1e-5)


def test_strength_zero_of_an_ensemble_is_the_plain_model(model: ModelPatcher, clip: CLIP) -> None:
    found = sample(apply(model, make_preset(model, [1.3, -0.4]), strength=0.0), clip, cfg=2.0)
    assert torch.equal(found, sample(model, clip, cfg=2.0))


def test_outside_its_window_a_guided_preset_is_plain_guidance(
    model: ModelPatcher, clip: CLIP
) -> None:
    never = apply(
        model, make_preset(model, [4.5, -3.2], Guidance(4.0)), start_percent=0.0, end_percent=1e-6
    )
    found = sample(never, clip, cfg=1.0, sigmas=SIGMAS[1:])
    assert_close(found, sample(model, clip, cfg=4.0, sigmas=SIGMAS[1:]), 1e-5)


def test_members_of_weight_zero_are_not_computed(model: ModelPatcher, clip: CLIP) -> None:
    rows: list[int] = []
    module = model.model.diffusion_model
    handle = module.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    sample(apply(model, make_preset(model, [0.5, 0.0, 0.9])), clip, sigmas=SIGMAS[:2])
    handle.remove()
    assert rows == [4]  # two pictures, two members, one forward


def test_a_member_alone_is_the_preset_alone(model: ModelPatcher, clip: CLIP) -> None:
    ensemble = make_preset(model, [0.0, 1.0])
    alone = Preset(
        ensemble.family, ensemble.blocks, "gate", (Member(ensemble.members[1].coefficients),)
    )
    found = sample(apply(model, ensemble), clip, cfg=2.0)
    assert torch.equal(found, sample(apply(model, alone), clip, cfg=2.0))


def test_in_turn_where_others_look_at_positions(model: ModelPatcher, clip: CLIP) -> None:
    """A patch sees the batches of plain sampling, and the result is the same."""
    preset = make_preset(model, [1.3, -0.4])
    expected = sample(apply(model, preset), clip, cfg=2.0)
    seen: list[list[int]] = []

    def watch(args: Any, extra: Any) -> Any:
        seen.append(list(args["transformer_options"]["cond_or_uncond"]))
        return extra["original_block"](args)

    watched = model.clone()
    watched.set_model_patch_replace(watch, "dit", "double_block", 0)
    for found in (apply(watched, preset), apply(model, preset)):
        assert_close(sample(found, clip, cfg=2.0), expected, 1e-5)
    assert seen
    assert all(sorted(entries) == [0, 1] for entries in seen)


@pytest.mark.parametrize("second", [Guidance(3.0), None])
def test_two_ensembles_cannot_be_stacked(model: ModelPatcher, second: Guidance | None) -> None:
    once = apply(model, make_preset(model, [0.5, 0.5]))
    with pytest.raises(ValueError, match="two of them cannot be stacked: remove one"):
        apply(once, make_preset(model, [2.0, -1.0], second))


@pytest.mark.parametrize("ensemble_first", [True, False])
def test_a_single_preset_multiplies_every_member(
    model: ModelPatcher, clip: CLIP, ensemble_first: bool
) -> None:
    ensemble, single = make_preset(model, [0.8, 0.3]), make_preset(model, [1.0], seed=7)
    factors = single.members[0].coefficients
    product = Preset(
        ensemble.family,
        ensemble.blocks,
        "gate",
        tuple(
            Member({n: v * factors[n] for n, v in m.coefficients.items()}, m.weight)
            for m in ensemble.members
        ),
    )
    first, second = (ensemble, single) if ensemble_first else (single, ensemble)
    found = sample(apply(apply(model, first), second), clip)
    assert_close(found, sample(apply(model, product), clip), 1e-5)


def test_guiders_without_plain_guidance_are_refused_before_sampling(
    model: ModelPatcher, clip: CLIP
) -> None:
    from comfy_extras.nodes_custom_sampler import Guider_Basic, Guider_DualCFG

    calibrated = apply(model, make_preset(model, [4.5, -3.2], Guidance(4.0)))
    positive, negative = conditions(clip)
    basic, dual = Guider_Basic(calibrated), Guider_DualCFG(calibrated)
    basic.set_conds(positive)
    dual.set_conds(positive, negative, negative)
    dual.set_cfg(3.0, 2.0)
    calls: list[Any] = []
    handle = model.model.diffusion_model.register_forward_pre_hook(lambda *_: calls.append(1))
    for guider, words in ((basic, "no negative conditioning"), (dual, "formula of its own")):
        with pytest.raises(ValueError, match=words):
            guider.sample(
                noise(),
                torch.zeros(2, 16, 8, 8),
                comfy.samplers.sampler_object("euler"),
                SIGMAS,
                disable_pbar=True,
            )
    handle.remove()
    assert not calls


def test_another_formula_after_ours_is_refused(model: ModelPatcher, clip: CLIP) -> None:
    calibrated = apply(model, make_preset(model, [4.5, -3.2], Guidance(4.0))).clone()
    calibrated.set_model_sampler_cfg_function(lambda args: args["cond"])
    with pytest.raises(ValueError, match="Another node has put its own CFG formula"):
        sample(calibrated, clip)
