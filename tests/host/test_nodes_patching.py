"""A calibrated clone changes its own pictures and nobody else's."""

from __future__ import annotations

import copy
from typing import Any

import comfy.model_management
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy.sd import CLIP
from torch import Tensor

from comfyui_calibri.benchmarks.footprint import values_read
from comfyui_calibri.calibri.coefficients import coefficient_space
from comfyui_calibri.nodes.gain_layer import GainLayer
from comfyui_calibri.nodes.identity import identity
from comfyui_calibri.nodes.patching import apply_gains, backbone_of, diffusion_model

from . import tiny_fixtures
from .tiny_patchers import sample

pytestmark = pytest.mark.oldest

clip, inference, model = tiny_fixtures.clip, tiny_fixtures.inference, tiny_fixtures.model


def taps(model: ModelPatcher) -> int:
    return len(backbone_of(model).taps)


def calibrated(model: ModelPatcher, gain: float = 0.6, **window: float) -> ModelPatcher:
    return apply_gains(model, GainLayer(torch.full((1, taps(model)), gain), **window))


def instance_forwards(model: ModelPatcher) -> list[str]:
    modules = diffusion_model(model).named_modules()
    return [name for name, module in modules if "forward" in vars(module)]


def test_gains_of_one_change_no_bit(model: ModelPatcher, clip: CLIP) -> None:
    assert torch.equal(sample(calibrated(model, 1.0), clip), sample(model, clip))


def test_clones_sampled_in_turn_do_not_influence_each_other(
    model: ModelPatcher, clip: CLIP
) -> None:
    plain = sample(model, clip)
    scaled = calibrated(model)
    first = sample(scaled, clip)
    assert not torch.allclose(first, plain, atol=1e-3)
    for _ in range(2):
        assert torch.equal(sample(model, clip), plain)
        assert torch.equal(sample(scaled, clip), first)
    assert instance_forwards(model) == []


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize(
    "error", [RuntimeError("broken"), comfy.model_management.InterruptProcessingException()]
)
def test_plain_model_is_whole_after_an_exception_within_a_step(
    model: ModelPatcher, clip: CLIP, error: Exception, step: int
) -> None:
    plain = sample(model, clip)
    scaled = calibrated(model)
    calls = 0

    def fail_within(module: torch.nn.Module, arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > step:
            raise error

    block = next(name for name, _ in diffusion_model(model).named_children() if "blocks" in name)
    handle = getattr(diffusion_model(model), block)[1].register_forward_pre_hook(fail_within)
    try:
        with pytest.raises(type(error)):
            sample(scaled, clip)
    finally:
        handle.remove()
    assert instance_forwards(model) == []
    assert torch.equal(sample(model, clip), plain)


def test_cancel_between_steps_leaves_both_clones_as_they_were(
    model: ModelPatcher, clip: CLIP, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, scaled = sample(model, clip), calibrated(model)
    before = sample(scaled, clip)
    import comfy.utils

    def cancel(value: int, *_: Any, **__: Any) -> None:
        if value == 1:
            comfy.model_management.interrupt_current_processing()
        comfy.model_management.throw_exception_if_processing_interrupted()

    with monkeypatch.context() as patched:
        patched.setattr(comfy.utils, "PROGRESS_BAR_HOOK", cancel)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            sample(scaled, clip)
    assert torch.equal(sample(model, clip), plain)
    assert torch.equal(sample(scaled, clip), before)


def test_chained_presets_multiply(model: ModelPatcher, clip: CLIP) -> None:
    twice = calibrated(calibrated(model, 0.5), 1.6)
    assert torch.allclose(sample(twice, clip), sample(calibrated(model, 0.8), clip), atol=1e-5)
    assert len(twice.get_wrappers(WrappersMP.APPLY_MODEL, "calibri")) == 1
    # The first of the chain still is what it was.
    half = calibrated(model, 0.5)
    once = sample(half, clip)
    calibrated(half, 1.6)
    assert torch.equal(sample(half, clip), once)


def test_start_and_end_percent_say_which_steps_are_scaled(model: ModelPatcher, clip: CLIP) -> None:
    plain, always = sample(model, clip), sample(calibrated(model), clip)
    early = sample(calibrated(model, end_percent=0.5), clip)
    late = sample(calibrated(model, start_percent=0.5), clip)
    for result in (early, late):
        assert not torch.allclose(result, plain, atol=1e-4)
        assert not torch.allclose(result, always, atol=1e-4)
    assert not torch.allclose(early, late, atol=1e-4)
    # Between two steps of the schedule the preset never acts.
    sigmas = comfy_sigmas(model)
    schedule = model.get_model_object("model_sampling")
    window = [
        percent / 1000
        for percent in range(1, 1000)
        if sigmas[1] < float(schedule.percent_to_sigma(percent / 1000)) < sigmas[0]
    ]
    idle = calibrated(model, start_percent=window[1], end_percent=window[-2])
    assert torch.equal(sample(idle, clip), plain)


@pytest.mark.parametrize("window", [{}, {"start_percent": 0.2, "end_percent": 0.7}])
def test_no_step_waits_for_the_device(
    model: ModelPatcher, clip: CLIP, window: dict[str, float]
) -> None:
    """What plain sampling reads per step is ComfyUI's; a preset adds nothing."""

    def reads(patcher: ModelPatcher, steps: int) -> int:
        return values_read(lambda: sample(patcher, clip, steps=steps))

    scaled = calibrated(model, **window)
    assert reads(scaled, 7) - reads(scaled, 3) == reads(model, 7) - reads(model, 3)
    level = torch.ones(2)
    assert values_read(lambda: float(level.max())) == values_read(lambda: bool(level[0] > 0)) == 1


def comfy_sigmas(model: ModelPatcher) -> list[float]:
    import comfy.samplers

    schedule = model.get_model_object("model_sampling")
    return comfy.samplers.calculate_sigmas(schedule, "simple", 3).tolist()


@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_each_row_of_a_batch_has_its_own_gains(model: ModelPatcher, clip: CLIP, cfg: float) -> None:
    import comfy.sample

    space = coefficient_space(backbone_of(model), "gate")
    generator = torch.Generator().manual_seed(3)
    gains = 1.0 + 0.3 * torch.randn(3, len(space.tap_index), generator=generator)
    noise = torch.randn(3, 16, 8, 8, generator=generator)
    positive = clip.encode_from_tokens_scheduled(clip.tokenize("a red circle"))
    negative = clip.encode_from_tokens_scheduled(clip.tokenize("two green stars"))

    def run(rows: slice) -> Tensor:
        clone = apply_gains(model, GainLayer(gains[rows]))
        return comfy.sample.sample(
            *(clone, noise[rows], 2, cfg, "euler", "simple", positive, negative),
            torch.zeros_like(noise[rows]),
            disable_pbar=True,
        )

    together = run(slice(None))
    alone = torch.cat([run(slice(i, i + 1)) for i in range(3)])
    assert torch.allclose(together, alone, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_gains_for_another_number_of_images_are_refused(model: ModelPatcher, clip: CLIP) -> None:
    with pytest.raises(ValueError, match="2 sets of coefficients"):
        sample(apply_gains(model, GainLayer(torch.ones(2, taps(model)))), clip)


def test_weight_patches_act_as_on_the_plain_model(model: ModelPatcher, clip: CLIP) -> None:
    weight = "diffusion_model.final_layer.linear.weight"
    shape = model.model.state_dict()[weight].shape
    patched = model.clone()
    patched.add_patches({weight: ("diff", (torch.full(shape, 0.01),))})
    plain = sample(patched, clip)
    assert not torch.equal(plain, sample(model, clip))
    assert torch.equal(sample(calibrated(patched, 1.0), clip), plain)
    assert not torch.allclose(sample(calibrated(patched), clip), sample(calibrated(model), clip))


def test_a_block_that_another_pack_puts_in_is_scaled_too(model: ModelPatcher, clip: CLIP) -> None:
    """An equal copy of a block gives equal pictures, in its clone and in those without it."""
    scaled = calibrated(model)
    expected = sample(scaled, clip)
    container = next(
        name for name, _ in diffusion_model(model).named_children() if "blocks" in name
    )
    path = f"diffusion_model.{container}.0"
    other = scaled.clone()
    other.add_object_patch(path, copy.deepcopy(model.get_model_object(path)))
    for patcher in (other, scaled, other):
        assert torch.equal(sample(patcher, clip), expected)


def test_presets_that_differ_in_one_late_coefficient_have_identities_of_their_own(
    model: ModelPatcher,
) -> None:
    gains = torch.ones(1, 4, taps(model))
    late, last_bit = gains.clone(), gains.clone()
    assert gains.numel() > 20
    late[0, -1, -1] = 1.5
    last_bit[0, 0, 0] += 2**-20
    weights = torch.full((1, 4), 0.25)

    def of(values: Tensor) -> str:
        return identity(apply_gains(model, GainLayer(values, weights=weights)))

    assert len({identity(model), of(gains), of(late), of(last_bit)}) == 4
    assert of(gains.clone()) == of(gains)
