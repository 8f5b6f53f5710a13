"""A QRM in ComfyUI's sampling gives each row what it says of that row's prompt and noise level."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import comfy.samplers
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from comfy_extras.nodes_torch_compile import TorchCompileModel
from torch import Tensor

from comfyui_calibri.benchmarks.footprint import values_read
from comfyui_calibri.nodes import qrm_layer
from comfyui_calibri.nodes.identity import identity
from comfyui_calibri.nodes.patching import apply_qrm
from comfyui_calibri.nodes.qrm_layer import QRMLayer

from . import combinations, tiny_fixtures
from .combinations import (
    SCALE,
    assert_alike,
    assert_different,
    call,
    encode,
    folded_members,
    make_preset,
    sample,
)
from .qrm_judge import Applied, judged, make_qrm
from .test_compatibility_conditioning import regions
from .tiny_patchers import make_clip, make_model

inference = tiny_fixtures.inference

STEPS = torch.tensor([1.0, 0.8, 0.6, 0.4, 0.2, 0.0])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> CLIP:
    return make_clip(Path(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def flux() -> ModelPatcher:
    return make_model("flux")


@pytest.fixture(scope="module")
def sd3() -> ModelPatcher:
    return make_model("sd3")


def loadable() -> ModelPatcher:
    """A model that says how to load it again, as loaders do for the nodes that need a copy."""
    model = make_model("sd3")
    model.cached_patcher_init = (lambda **_: make_model("sd3"), ())
    return model


@pytest.fixture
def prompts(clip: CLIP) -> tuple[list[Any], list[Any]]:
    return encode(clip, "a red circle"), encode(clip, "a blue square")


@pytest.mark.oldest
@pytest.mark.parametrize("mode", ["add", "scale", "gates"])
@pytest.mark.parametrize("guidance", ["both", "positive only"])
def test_each_prediction_of_guidance_has_its_own_vectors(
    sd3: ModelPatcher, prompts: Any, mode: str, guidance: str
) -> None:
    qrm = Applied(make_qrm(sd3, mode), guidance=guidance)

    def picture(model: ModelPatcher) -> Tensor:
        return sample(model, *prompts, sigmas=STEPS[-3:])

    with judged(sd3, qrm):
        expected = picture(sd3)
    assert_different(expected, picture(sd3))
    assert_alike(picture(qrm.on(sd3)), expected)
    other = Applied(qrm.file, guidance="both" if guidance != "both" else "positive only")
    assert_different(picture(other.on(sd3)), expected)


def test_a_batch_of_prompts(flux: ModelPatcher, clip: CLIP) -> None:
    """ComfyUI takes a conditioning of two rows for a batch of two."""
    one, two = encode(clip, "a red circle"), encode(clip, "a blue star")
    both = [
        [
            torch.cat([one[0][0], two[0][0]]),
            {
                **one[0][1],
                "pooled_output": torch.cat([c[0][1]["pooled_output"] for c in (one, two)]),
            },
        ]
    ]
    qrm = Applied(make_qrm(flux))
    with judged(flux, qrm):
        expected = sample(flux, both, one)
    assert_alike(sample(qrm.on(flux), both, one), expected)
    assert_different(sample(qrm.on(flux), one, one)[1], expected[1])


@pytest.mark.oldest
def test_areas_and_batches_that_memory_splits(
    sd3: ModelPatcher, clip: CLIP, prompts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    qrm = Applied(make_qrm(sd3), guidance="positive only")
    conditions = regions(clip), prompts[1]

    def picture(model: ModelPatcher) -> Tensor:
        return sample(model, *conditions, sigmas=STEPS[-3:])

    with judged(sd3, qrm):
        expected = picture(sd3)
    assert_alike(picture(qrm.on(sd3)), expected)
    keeping = qrm.on(sd3, reuse_steps=2)
    kept = picture(keeping)
    assert_different(kept, expected)
    needed = lambda shape, **_: 0.0 if shape[0] <= 2 else 1e30  # noqa: E731
    monkeypatch.setattr(sd3.model, "memory_required", needed)
    assert_alike(picture(qrm.on(sd3)), expected)
    # Vectors that are kept find their prompts again, in whichever call they are.
    assert_alike(picture(keeping), kept)


@pytest.mark.parametrize("kind", combinations.KINDS)
def test_a_preset_before_and_after(
    sd3: ModelPatcher, prompts: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its gains scale what the QRM has changed, of each member."""
    qrm, preset = Applied(make_qrm(sd3, "scale")), make_preset(sd3, kind)

    def picture(model: ModelPatcher) -> Tensor:
        return sample(model, *prompts, sigmas=STEPS[-3:])

    with folded_members(sd3, preset, monkeypatch), judged(sd3, qrm):
        expected = picture(sd3)
    before, after = combinations.apply(sd3, preset), combinations.apply(qrm.on(sd3), preset)
    assert_different(picture(before), expected)
    assert_alike(picture(qrm.on(before)), expected)
    assert_alike(picture(after), expected)


def test_two_add_up_and_strength_is_a_factor(flux: ModelPatcher, prompts: Any) -> None:
    one, two = Applied(make_qrm(flux), 0.5), Applied(make_qrm(flux, "scale", seed=1), 1.5)
    with judged(flux, one, two):
        expected = sample(flux, *prompts)
    assert_alike(sample(two.on(one.on(flux)), *prompts), expected)
    plain = sample(flux, *prompts)
    nothing = Applied(one.file, strength=0.0)
    assert torch.equal(sample(nothing.on(flux), *prompts), plain)
    untrained = Applied(make_qrm(flux, size=0.0))
    assert torch.equal(sample(untrained.on(flux), *prompts), plain)


def test_start_and_end_percent(flux: ModelPatcher, prompts: Any) -> None:
    qrm = Applied(make_qrm(flux))
    plain, always = sample(flux, *prompts), sample(qrm.on(flux), *prompts)
    early = sample(qrm.on(flux, end_percent=0.4), *prompts)
    late = sample(qrm.on(flux, start_percent=0.4), *prompts)
    for found in (early, late):
        assert_different(found, plain)
        assert_different(found, always)
    assert_different(early, late)


@pytest.mark.oldest
@pytest.mark.parametrize(
    ("sampler", "reuse", "levels"),
    [
        ("euler", 1, [1.0, 0.8, 0.6, 0.4, 0.2]),
        ("euler", 2, [1.0, 0.6, 0.2]),
        # Its second call of a step is at the next step's level; the last step has none.
        ("heun", 2, [1.0, 0.6, 0.2]),
        ("dpm_2", 3, [1.0, 0.4]),
    ],
)
def test_vectors_are_asked_for_in_every_nth_step(
    flux: ModelPatcher, prompts: Any, sampler: str, reuse: int, levels: list[float]
) -> None:
    qrm, asked = make_qrm(flux), list[float]()
    handle = qrm.module.register_forward_pre_hook(lambda _, args: asked.append(float(args[0][0])))
    applied = apply_qrm(flux, QRMLayer(qrm.module, reuse=reuse))
    guider = comfy.samplers.CFGGuider(applied)
    guider.set_conds(*prompts)
    guider.set_cfg(SCALE)
    for _ in range(2):  # a second sampling of one guider begins anew
        asked.clear()
        guider.sample(
            combinations.noise(),
            torch.zeros(2, 16, 8, 8),
            comfy.samplers.sampler_object(sampler),
            STEPS,
            disable_pbar=True,
        )
        assert asked == pytest.approx(levels)
    handle.remove()


def test_no_step_waits_for_the_device(sd3: ModelPatcher, prompts: Any) -> None:
    def reads(model: ModelPatcher, sigmas: Tensor) -> int:
        return values_read(lambda: sample(model, *prompts, sigmas=sigmas))

    plain, applied = sd3, Applied(make_qrm(sd3), 0.7, "positive only").on(sd3)
    reads(applied, STEPS[-2:])  # the first call sends it where the model is
    more = reads(plain, STEPS) - reads(plain, STEPS[-3:])
    assert reads(applied, STEPS) - reads(applied, STEPS[-3:]) == more


@pytest.mark.slow
@pytest.mark.usefixtures("steady_memory")
def test_a_compiled_model_never_gives_a_stale_picture(prompts: Any) -> None:
    torch._dynamo.reset()
    model = loadable()

    def compiled(m: ModelPatcher) -> ModelPatcher:
        covered: ModelPatcher = call(TorchCompileModel, model=m, backend="eager")
        return covered

    def picture(m: ModelPatcher) -> Tensor:
        return sample(m, *prompts, sigmas=STEPS[-3:])

    qrm, other = Applied(make_qrm(model)), Applied(make_qrm(model, seed=1))
    plain, expected, second = picture(model), picture(qrm.on(model)), picture(other.on(model))
    after, before = compiled(qrm.on(model)), qrm.on(compiled(model))
    for found in (after, before):
        assert_alike(picture(found), expected)
    assert_alike(picture(other.on(compiled(model))), second)
    assert_alike(picture(compiled(model)), plain)
    assert_alike(picture(after), expected)


def test_comfyui_loads_it_beside_the_model(flux: ModelPatcher, prompts: Any) -> None:
    qrm = Applied(make_qrm(flux))
    applied = qrm.on(qrm.on(flux))
    patchers = applied.get_nested_additional_models()
    assert [patcher.model for patcher in patchers] == [qrm.file.module] * 2
    assert not flux.get_nested_additional_models()


def test_several_gpus_share_the_conditions(prompts: Any) -> None:
    """Tried with two names of one CPU. Each has the weights of the model and the QRM to itself."""
    model = loadable()
    applied = Applied(make_qrm(model)).on(model)
    expected = sample(applied, *prompts)
    other = applied.deepclone_multigpu(new_load_device=torch.device("cpu", 0))
    other.is_multigpu_base_clone = True
    shared = applied.clone()
    shared.set_additional_models("multigpu", [other])
    calls: list[int] = []
    for patcher in (applied, other):
        patcher.model.diffusion_model.register_forward_pre_hook(
            lambda module, _: calls.append(id(module))
        )
    assert_alike(sample(shared, *prompts), expected)
    assert len(set(calls)) == 2


def test_weights_that_are_elsewhere_are_copied_for_one_sampling(
    flux: ModelPatcher, prompts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where memory is too short for ComfyUI to load them; all of it is one CPU here."""
    file = make_qrm(flux)
    expected = sample(Applied(file).on(flux), *prompts)
    layer = QRMLayer(file.module)
    applied = apply_qrm(flux, layer)
    copied: list[Any] = []
    real = copy.deepcopy

    def deepcopy(module: Any, *rest: Any) -> Any:
        if module is file.module:
            copied.append(module)
        return real(module, *rest)

    monkeypatch.setattr(qrm_layer, "_is_on", lambda module, device: False)
    monkeypatch.setattr(qrm_layer.copy, "deepcopy", deepcopy)
    for times in (1, 2):
        assert torch.equal(sample(applied, *prompts), expected)
        assert len(copied) == times
    assert not layer._samplings


def lora(model: ModelPatcher) -> dict[str, Tensor]:
    """A LoRA file's tensors for a linear that computes gates."""
    generator = torch.Generator().manual_seed(11)
    path = "diffusion_model.joint_blocks.0.x_block.adaLN_modulation.1"
    linear = model.model.get_submodule(path)
    return {
        f"{path}.lora_up.weight": torch.randn(linear.out_features, 4, generator=generator) * 0.05,
        f"{path}.lora_down.weight": torch.randn(4, linear.in_features, generator=generator),
    }


def test_a_lora_before_and_after(sd3: ModelPatcher, prompts: Any) -> None:
    def patched(model: ModelPatcher) -> ModelPatcher:
        with_lora: ModelPatcher = comfy.sd.load_lora_for_models(model, None, lora(sd3), 0.8, 0.0)[0]
        return with_lora

    def picture(model: ModelPatcher) -> Tensor:
        return sample(model, *prompts, sigmas=STEPS[-3:])

    qrm = Applied(make_qrm(sd3))
    with judged(sd3, qrm):
        expected = picture(patched(sd3))
    assert_different(expected, picture(qrm.on(sd3)))
    assert_alike(picture(qrm.on(patched(sd3))), expected)
    assert_alike(picture(patched(qrm.on(sd3))), expected)


def test_models_with_other_qrms_have_identities_of_their_own(flux: ModelPatcher) -> None:
    one, two = make_qrm(flux), make_qrm(flux, seed=1)
    models = [
        flux,
        Applied(one).on(flux),
        Applied(two).on(flux),
        Applied(one, 0.5).on(flux),
        Applied(one).on(flux, reuse_steps=2),
    ]
    assert len({identity(model) for model in models}) == len(models)
    assert identity(Applied(make_qrm(flux)).on(flux)) == identity(models[1])
