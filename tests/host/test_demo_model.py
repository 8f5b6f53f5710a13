"""The demo's files in ComfyUI's own classes: detected by its loaders, equal to our torch code."""

from __future__ import annotations

import comfy.model_management
import comfy.sample
import comfy.sd
import comfy.utils
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from comfyui_calibri.calibri.coefficients import coefficient_space
from comfyui_calibri.calibri.ensemble_space import ensemble_space
from comfyui_calibri.calibri.evaluation import Sample
from comfyui_calibri.calibri.presets import Guidance, check_preset, fingerprint, load_preset
from comfyui_calibri.cli import app
from comfyui_calibri.demo.autoencoder import Autoencoder
from comfyui_calibri.demo.evaluator import DemoEvaluator
from comfyui_calibri.demo.model import Flux, FluxConfig
from comfyui_calibri.demo.pictures import DemoModels
from comfyui_calibri.demo.prompts import generate_prompts
from comfyui_calibri.demo.sampler import guided, sample
from comfyui_calibri.demo.text_encoder import TextEncoder, token_rows
from comfyui_calibri.demo.weights import DIT, TEXT_ENCODER, VAE, WEIGHTS, load_into
from comfyui_calibri.nodes.demo_clip import load_text_encoder
from comfyui_calibri.nodes.patching import backbone_of, diffusion_model
from comfyui_calibri.nodes.sampling import ComfyEvaluator, SamplerSettings

pytestmark = pytest.mark.oldest

PROMPTS = [*generate_prompts(3, 0, "test"), ""]


@pytest.fixture(scope="module")
def patcher(newest: bool) -> object:
    if not newest:
        pytest.skip("this ComfyUI's loader knows FLUX at its full width only")
    model = comfy.sd.load_diffusion_model(str(WEIGHTS / DIT))
    comfy.model_management.load_models_gpu([model])
    return model


@pytest.fixture(scope="module")
def flux() -> Flux:
    return load_into(Flux(), DIT)


@pytest.fixture(scope="module")
def encoded() -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        tokens, pooled = load_into(TextEncoder(), TEXT_ENCODER)(token_rows(PROMPTS))
    return tokens, pooled


def test_the_files_together_are_small_enough_to_ship() -> None:
    assert sum(file.stat().st_size for file in WEIGHTS.rglob("*.safetensors")) <= 25_000_000


def test_the_dit_is_detected_as_flux_and_equals_ours(patcher, flux, encoded) -> None:
    assert type(patcher.model.model_config).__name__ == "FluxSchnell"
    generator = torch.Generator().manual_seed(0)
    x, t = torch.randn(4, 16, 8, 8, generator=generator), torch.tensor([0.05, 0.4, 0.8, 1.0])
    with torch.inference_mode():
        ours = flux(x, t, *encoded)
        theirs = patcher.model.diffusion_model(x, t, *encoded)
    assert ours.std() > 0.1  # trained: an untrained DiT predicts nothing
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)


def test_what_train_saves_is_detected_as_flux_and_equals_ours(newest, encoded, tmp_path) -> None:
    if not newest:
        pytest.skip("this ComfyUI's loader knows FLUX at its full width only")
    sizes = ["--pictures", "4", "--double-blocks", "1", "--single-blocks", "2", "--batch", "4"]
    steps = ["--steps", "4", "--warm-up", "0", "--learning-rate", "0.02", "--ema", "0.5"]
    options = ["--demo", "--cpu", *sizes, *steps, "--width", "4", "--output", str(tmp_path)]
    done = CliRunner().invoke(app, ["train", *options])
    assert done.exit_code == 0, done.output
    file = tmp_path / "model.safetensors"
    model = comfy.sd.load_diffusion_model(str(file))
    comfy.model_management.load_models_gpu([model])
    assert type(model.model.model_config).__name__ == "FluxSchnell"
    trained = load_into(Flux(FluxConfig(double_blocks=1, single_blocks=2)), file.name, tmp_path)
    x, t = torch.randn(4, 16, 8, 8), torch.tensor([0.05, 0.4, 0.8, 1.0])
    with torch.inference_mode():
        ours = trained(x, t, *encoded)
        theirs = model.model.diffusion_model(x, t, *encoded)
    assert ours.std() > 0.01
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)


def test_the_preset_that_ships_fits_the_dit_and_has_proven_a_gain(patcher) -> None:
    preset = load_preset(WEIGHTS / "calibri" / "calibri-demo.safetensors")
    _, vector = check_preset(preset, backbone_of(patcher))
    assert (vector != 1.0).any()
    assert preset.fingerprint == fingerprint(diffusion_model(patcher))
    (reward,) = preset.rewards
    assert reward.low > 0


def test_the_text_encoder_equals_comfyuis_clip(encoded) -> None:
    clip = load_text_encoder(WEIGHTS / TEXT_ENCODER)
    for row, prompt in enumerate(PROMPTS):
        tokens, pooled = clip.encode_from_tokens(clip.tokenize(prompt), return_pooled=True)
        torch.testing.assert_close(tokens[0], encoded[0][row], rtol=0, atol=1e-5)
        torch.testing.assert_close(pooled[0], encoded[1][row], rtol=0, atol=1e-5)


def test_the_autoencoder_equals_comfyuis_vae() -> None:
    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(WEIGHTS / VAE)))
    ours = load_into(Autoencoder(), VAE)
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(2, 64, 64, 3, generator=generator)
    with torch.inference_mode():
        latents = ours.encode(pictures.permute(0, 3, 1, 2))
        restored = ours.decode(latents).clamp(0, 1).permute(0, 2, 3, 1)
    raw = vae.encode(pictures)
    # The stock VAE speaks FLUX's latent format; the DiT sees (raw - shift) * scale.
    torch.testing.assert_close((raw - 0.1159) * 0.3611, latents, rtol=0, atol=1e-4)
    torch.testing.assert_close(vae.decode(raw), restored, rtol=0, atol=1e-4)


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_comfyuis_euler_with_the_simple_schedule_equals_ours(patcher, flux, encoded, cfg) -> None:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(1, 16, 8, 8, generator=generator)
    tokens, pooled = encoded
    negative = (tokens[3:4], pooled[3:4])
    ours = sample(guided(flux, (tokens[:1], pooled[:1]), cfg, negative), noise, 4)
    conds = [[[tokens[i : i + 1], {"pooled_output": pooled[i : i + 1]}]] for i in (0, 3)]
    with torch.inference_mode():
        raw = comfy.sample.sample(
            patcher, noise, 4, cfg, "euler", "simple", *conds, torch.zeros_like(noise), seed=0
        )
    torch.testing.assert_close((raw - 0.1159) * 0.3611, ours, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("members", "cfg"), [("one", 3.0), ("an ensemble", 1.0), ("guided", 3.0)])
def test_the_command_lines_sampler_draws_and_scores_what_comfyui_does(
    patcher, members, cfg
) -> None:
    models = DemoModels.load()
    space = ensemble_space(
        coefficient_space(backbone_of(patcher), "gate"),
        members=1 if members == "one" else 2,
        guidance=Guidance(2.5) if members == "guided" else None,
    )
    vectors = space.identity + np.random.default_rng(0).uniform(-0.3, 0.3, (2, len(space.names)))
    bucket = [Sample(0, 11), Sample(2, 12)]
    clip = load_text_encoder(WEIGHTS / TEXT_ENCODER)
    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(WEIGHTS / VAE)))
    settings = SamplerSettings("euler", "simple", 2, cfg, None, 64, 64, "")
    theirs = ComfyEvaluator(patcher, clip, vae, models.reward, space, settings, PROMPTS[:3])
    ours = DemoEvaluator(models, space, PROMPTS[:3], 2, cfg)
    with torch.inference_mode():
        drawn = [evaluator.images(vectors, bucket) for evaluator in (theirs, ours)]
        (batch,) = ours.plan(len(vectors), bucket)
        rewards = [evaluator.run(batch, vectors, bucket) for evaluator in (theirs, ours)]
    assert np.abs(drawn[0][0].astype(int) - drawn[0][1]).max() > 20  # candidates differ
    assert np.abs(drawn[0].astype(int) - drawn[1]).max() <= 1
    np.testing.assert_allclose(rewards[1], rewards[0], atol=1e-3)
