"""ComfyUI as evaluator: an image's reward depends on its candidate, prompt and seed alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.samplers
import numpy as np
import pytest
import torch
from comfy.k_diffusion.sampling import default_noise_sampler
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE

from comfyui_calibri.calibri.coefficients import coefficient_space
from comfyui_calibri.calibri.ensemble_space import EnsembleSpace, ensemble_space
from comfyui_calibri.calibri.evaluation import BatchTooLargeError, Sample
from comfyui_calibri.nodes import noise
from comfyui_calibri.nodes.noise import check_sampler, check_scheduler, initial_noise
from comfyui_calibri.nodes.patching import backbone_of, diffusion_model
from comfyui_calibri.nodes.sampling import ComfyEvaluator, SamplerSettings

from .tiny_patchers import Brightness, make_clip, make_model, make_vae, sample

pytestmark = pytest.mark.oldest

SETTINGS = SamplerSettings("euler", "simple", 2, 2.0, 3.5, 64, 64, "")
LONG = "a red circle and a blue square " * 3
PROMPTS = ("a red circle", "two green stars", LONG, "a pink ring")
BUCKET = tuple(Sample(prompt, 100 + prompt) for prompt in range(len(PROMPTS)))


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> CLIP:
    with torch.inference_mode():
        return make_clip(Path(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def vae() -> VAE:
    with torch.inference_mode():
        return make_vae()


@pytest.fixture(scope="module")
def model() -> ModelPatcher:
    with torch.inference_mode():
        return make_model()


@pytest.fixture(scope="module")
def space(model: ModelPatcher) -> EnsembleSpace:
    return ensemble_space(coefficient_space(backbone_of(model), "gate"))


@pytest.fixture(scope="module")
def vectors(space: EnsembleSpace) -> np.ndarray:
    random = np.random.default_rng(0)
    return 1.0 + 0.3 * random.standard_normal((3, len(space.names)))


def evaluator(
    model: ModelPatcher, clip: CLIP, vae: VAE, space: EnsembleSpace, **changes: Any
) -> ComfyEvaluator:
    settings = replace(SETTINGS, **changes)
    return ComfyEvaluator(model, clip, vae, Brightness(), space, settings, PROMPTS)


def rewards(judge: ComfyEvaluator, vectors: np.ndarray, batches: Sequence[Any]) -> np.ndarray:
    """All rewards [K, S], batch by batch."""
    table = np.full((len(vectors), len(BUCKET)), np.nan)
    for batch in batches:
        for pair, reward in zip(batch, judge.run(batch, vectors, BUCKET), strict=True):
            table[pair] = reward
    return table


def test_plan_holds_each_pair_once_in_batches_of_equal_shapes(
    model: ModelPatcher, clip: CLIP, vae: VAE, space: EnsembleSpace
) -> None:
    batches = evaluator(model, clip, vae, space).plan(3, BUCKET)
    pairs = [pair for batch in batches for pair in batch]
    assert sorted(pairs) == [(c, p) for c in range(3) for p in range(len(BUCKET))]
    # The long prompt takes two chunks of the text encoder and cannot share a batch.
    assert [(0, 2), (1, 2), (2, 2)] in [sorted(batch) for batch in batches]
    assert any({0, 1, 3} == {p for _, p in batch} for batch in batches)


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_sde", "res_multistep"])
@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_rewards_do_not_depend_on_the_batch(
    model: ModelPatcher,
    clip: CLIP,
    vae: VAE,
    space: EnsembleSpace,
    vectors: np.ndarray,
    sampler: str,
    cfg: float,
) -> None:
    judge = evaluator(model, clip, vae, space, sampler=sampler, cfg=cfg)
    together = rewards(judge, vectors, judge.plan(3, BUCKET))
    one_by_one = rewards(judge, vectors, [((c, p),) for p in (3, 1, 0, 2) for c in range(3)])
    np.testing.assert_allclose(together, one_by_one, rtol=1e-5)
    assert len(np.unique(together.round(6))) > len(together)


def adds_one_to_the_seed() -> bool:
    """Whether ComfyUI keeps the noise within a sampler apart from the noise it begins with."""
    x = torch.zeros(1, 4)
    drawn = default_noise_sampler(x, seed=6)(None, None)
    return torch.equal(drawn, torch.randn(1, 4, generator=torch.Generator().manual_seed(7)))


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m_sde"])
def test_an_image_is_the_one_ksampler_draws_with_that_seed(
    model: ModelPatcher, clip: CLIP, vae: VAE, space: EnsembleSpace, sampler: str
) -> None:
    if sampler == "euler_ancestral" and not adds_one_to_the_seed():
        pytest.skip("this ComfyUI draws the sampler's noise from the seed of the initial noise")
    judge = evaluator(model, clip, vae, space, sampler=sampler, steps=3, guidance=None)
    batch = ((0, 0), (0, 1), (0, 3))
    judged = judge.run(batch, space.identity[None], BUCKET)
    for reward, (_, position) in zip(judged, batch, strict=True):
        prompt = PROMPTS[position]
        latent = sample(model, clip, seed=100 + position, prompt=prompt, sampler_name=sampler)
        expected = Brightness().score(vae.decode(latent), [prompt])
        np.testing.assert_allclose(reward, expected.item(), rtol=1e-5)


def test_guidance_reaches_the_model(
    model: ModelPatcher, clip: CLIP, vae: VAE, space: EnsembleSpace
) -> None:
    low, high = (
        evaluator(model, clip, vae, space, guidance=value).run(
            ((0, 0),), space.identity[None], BUCKET
        )
        for value in (1.0, 9.0)
    )
    assert low != high


def test_noise_of_a_row_is_its_seed_s() -> None:
    alone = [initial_noise((4, 2, 2), [seed]) for seed in (7, 8)]
    assert torch.equal(
        initial_noise((4, 2, 2), [8, 7, 8]), torch.cat([alone[i] for i in (1, 0, 1)])
    )
    default = torch.randn(1, 4, 2, 2, generator=torch.manual_seed(7))
    assert torch.equal(alone[0], default)


@pytest.mark.parametrize("name", comfy.samplers.SAMPLER_NAMES)
def test_each_sampler_keeps_images_apart_or_is_refused(name: str) -> None:
    if name == "dpm_adaptive":  # chooses its steps by the error of the whole batch
        with pytest.raises(ValueError, match="dpm_adaptive") as refused:
            check_sampler(name)
        assert "euler, " in str(refused.value)
        assert ", dpm_adaptive" not in str(refused.value)
    else:
        check_sampler(name)


def test_sampler_that_draws_its_own_noise_for_a_batch_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from comfy.k_diffusion import sampling

    def restless(model, x, sigmas, extra_args=None, callback=None, disable=None):
        return model(x, sigmas[:1] * x.new_ones(len(x)), **extra_args) + torch.randn_like(x)

    monkeypatch.setattr(sampling, "sample_restless", restless, raising=False)
    noise.keeps_rows_apart.cache_clear()
    with pytest.raises(ValueError, match="'restless' cannot be used"):
        check_sampler("restless")


def test_unknown_samplers_and_schedulers_are_named() -> None:
    for check, known in ((check_sampler, "euler"), (check_scheduler, "simple")):
        check(known)
        with pytest.raises(ValueError, match=f"'nosuch' does not exist: .*{known}, "):
            check("nosuch")


def test_out_of_memory_asks_for_halves_and_rewards_stay(
    model: ModelPatcher, clip: CLIP, vae: VAE, space: EnsembleSpace, vectors: np.ndarray
) -> None:
    judge = evaluator(model, clip, vae, space)
    batch = tuple((c, p) for p in (0, 1) for c in range(3))
    expected = judge.run(batch, vectors, BUCKET)

    def too_many_rows(module: torch.nn.Module, arguments: Any) -> None:
        if len(arguments[0]) > 6:  # three images, conditioned and not
            raise comfy.model_management.OOM_EXCEPTION("out of memory")

    handle = diffusion_model(model).register_forward_pre_hook(too_many_rows)
    try:
        with pytest.raises(BatchTooLargeError):
            judge.run(batch, vectors, BUCKET)
        halves = [judge.run(half, vectors, BUCKET) for half in (batch[:3], batch[3:])]
        pictures = judge.images(vectors, BUCKET[:2])
    finally:
        handle.remove()
    np.testing.assert_allclose(np.concatenate(halves), expected, rtol=1e-5)
    assert pictures.shape == (3, 2, 64, 64, 3)


def test_reward_in_half_precision_that_runs_out_of_memory_is_halved_too(
    model: ModelPatcher, clip: CLIP, vae: VAE, space: EnsembleSpace
) -> None:
    class Large(Brightness):
        def score(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
            if len(images) > 1:
                raise comfy.model_management.OOM_EXCEPTION("out of memory")
            return super().score(images, prompts).bfloat16()

    judge = ComfyEvaluator(model, clip, vae, Large(), space, SETTINGS, PROMPTS)
    with pytest.raises(BatchTooLargeError):
        judge.run(((0, 0), (0, 1)), space.identity[None], BUCKET)
    (reward,) = judge.run(((0, 0),), space.identity[None], BUCKET)
    plain = evaluator(model, clip, vae, space)
    assert reward == pytest.approx(plain.run(((0, 0),), space.identity[None], BUCKET)[0], rel=1e-2)


def test_one_image_too_large_for_memory_says_what_to_do(
    model: ModelPatcher, clip: CLIP, vae: VAE, space: EnsembleSpace
) -> None:
    judge = evaluator(model, clip, vae, space)

    def always(module: torch.nn.Module, arguments: Any) -> None:
        raise comfy.model_management.OOM_EXCEPTION("out of memory")

    handle = diffusion_model(model).register_forward_pre_hook(always)
    try:
        with pytest.raises(RuntimeError, match="use a smaller size"):
            judge.run(((0, 0),), space.identity[None], BUCKET)
    finally:
        handle.remove()


def test_cancel_takes_effect_within_a_batch(
    model: ModelPatcher, clip: CLIP, vae: VAE, space: EnsembleSpace
) -> None:
    judge = evaluator(model, clip, vae, space, steps=20)
    calls = 0

    def press_cancel(module: torch.nn.Module, arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            comfy.model_management.interrupt_current_processing()

    handle = diffusion_model(model).register_forward_pre_hook(press_cancel)
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            judge.run(((0, 0),), space.identity[None], BUCKET)
    finally:
        handle.remove()
        comfy.model_management.interrupt_current_processing(False)
    assert calls == 2


@pytest.mark.parametrize(
    ("family", "size", "problem"),
    [
        ("flux", (60, 64), "multiples of 8"),
        ("sd3", (64, 264), "at most 256 x 256"),
    ],
)
def test_sizes_the_model_cannot_make_are_refused_before_sampling(
    clip: CLIP, vae: VAE, family: str, size: tuple[int, int], problem: str
) -> None:
    model = make_model(family)
    space = ensemble_space(coefficient_space(backbone_of(model), "block"))
    with pytest.raises(ValueError, match=problem):
        evaluator(model, clip, vae, space, width=size[0], height=size[1])


def test_largest_size_of_sd3_works(clip: CLIP, vae: VAE) -> None:
    model = make_model("sd3")
    space = ensemble_space(coefficient_space(backbone_of(model), "block"))
    judge = evaluator(model, clip, vae, space, width=256, height=256, steps=1)
    assert np.isfinite(judge.run(((0, 0),), space.identity[None], BUCKET)).all()


def test_vae_of_another_latent_is_refused(
    model: ModelPatcher, clip: CLIP, space: EnsembleSpace
) -> None:
    wrong = make_vae(latent_channels=4)
    with pytest.raises(ValueError, match="4 channels but the model takes 16"):
        evaluator(model, clip, wrong, space)
