"""Calibrate draws one picture from a prompt with any family that can, and refuses the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.supported_models
import folder_paths
import numpy as np
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE

from comfyui_calibri.calibri.coefficients import coefficient_space
from comfyui_calibri.calibri.ensemble_space import ensemble_space
from comfyui_calibri.calibri.evaluation import Sample
from comfyui_calibri.nodes.calibrate import CalibriCalibrate
from comfyui_calibri.nodes.conditioning import signature, stack
from comfyui_calibri.nodes.latents import empty_latent
from comfyui_calibri.nodes.patching import backbone_of
from comfyui_calibri.nodes.sampling import ComfyEvaluator, SamplerSettings

from . import tiny_video_and_edit as tiny
from .tiny_patchers import FLUX, Brightness, make_clip, make_patcher, make_vae

pytestmark = pytest.mark.oldest

PROMPTS = ("a red circle", "two green stars and a long line", "a pink ring")
BUCKET = tuple(Sample(prompt, 100 + prompt) for prompt in range(len(PROMPTS)))
SETTINGS = SamplerSettings("euler", "simple", 2, 2.0, None, 48, 32, "")
CPU = torch.device("cpu")

FAMILIES = {
    "Wan": ("WAN21_T2V", tiny.WAN),
    "Wan image to video": ("WAN21_I2V", {**tiny.WAN, "model_type": "i2v", "in_dim": 36}),
    "HunyuanVideo": ("HunyuanVideo", tiny.HUNYUAN_VIDEO),
    "Qwen-Image": ("QwenImage", tiny.QWEN_IMAGE),
    "JoyImage-Edit": ("JoyImage", tiny.JOY_IMAGE),
    "FLUX.1 Fill": ("FluxInpaint", {**FLUX, "in_channels": 96}),
    "OmniGen2": ("Omnigen2", tiny.OMNIGEN_2),
    "Lumina 2": ("Lumina2", tiny.LUMINA_2),
}
# Those whose text encoders give a mask, and whether they pad.
MASKED = {"OmniGen2": False, "Lumina 2": True}


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> CLIP:
    with torch.inference_mode():
        return make_clip(Path(tmp_path_factory.mktemp("clip")))


class MaskingClip:
    """A text encoder that says in a mask which tokens are the prompt's, and not padding."""

    def __init__(self, clip: CLIP, pads: bool) -> None:
        self._clip = clip
        self._pads = pads
        self.patcher = clip.patcher

    def tokenize(self, text: str) -> tuple[int, Any]:
        return len(text), self._clip.tokenize(text)

    def encode_from_tokens_scheduled(self, tokens: tuple[int, Any], **options: Any) -> Any:
        length, tokens = tokens
        encoded = self._clip.encode_from_tokens_scheduled(tokens, **options)
        for context, extra in encoded:
            tokens_used = length if self._pads else context.shape[1]
            extra["attention_mask"] = (torch.arange(context.shape[1])[None] < tokens_used).long()
        return encoded


def make(family: str) -> tuple[ModelPatcher, VAE]:
    """The MODEL and a VAE of its latents, where ComfyUI has such a model."""
    try:
        model = make_patcher(*FAMILIES[family])
    except ImportError as error:
        pytest.skip(f"this ComfyUI has {error}")
    frames = model.get_model_object("latent_format").latent_dimensions == 3
    return model, tiny.make_video_vae() if frames else make_vae()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_picture_does_not_depend_on_its_batch(family: str, clip: CLIP, newest: bool) -> None:
    if MASKED.get(family) and not newest:
        pytest.skip("this ComfyUI itself fails with a mask and two prompts in a call")
    model, vae = make(family)
    text_encoder: Any = clip
    if family in MASKED:
        text_encoder = MaskingClip(clip, pads=MASKED[family])
    space = ensemble_space(coefficient_space(backbone_of(model), "gate"))
    judge = ComfyEvaluator(model, text_encoder, vae, Brightness(), space, SETTINGS, PROMPTS)
    vectors = 1.0 + 0.3 * np.random.default_rng(0).standard_normal((2, len(space.names)))
    together = np.full((2, len(BUCKET)), np.nan)
    for batch in judge.plan(2, BUCKET):
        for pair, reward in zip(batch, judge.run(batch, vectors, BUCKET), strict=True):
            together[pair] = reward
    pairs = [(candidate, position) for candidate in range(2) for position in range(len(BUCKET))]
    alone = [judge.run((pair,), vectors, BUCKET)[0] for pair in pairs]
    np.testing.assert_allclose(together.ravel(), alone, rtol=1e-5)
    assert len(np.unique(together.round(7))) == together.size
    assert judge.images(vectors, BUCKET).shape == (2, len(BUCKET), 32, 48, 3)


@pytest.mark.parametrize("family", ["Wan", "Qwen-Image"])
def test_the_picture_is_the_frame_that_ksampler_draws(family: str, clip: CLIP) -> None:
    import nodes

    model, vae = make(family)
    space = ensemble_space(coefficient_space(backbone_of(model), "block"))
    judge = ComfyEvaluator(model, clip, vae, Brightness(), space, SETTINGS, PROMPTS)
    (reward,) = judge.run(((0, 1),), space.identity[None], BUCKET)
    positive, negative = (
        clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (PROMPTS[1], "")
    )
    one_frame = {"samples": torch.zeros(1, 16, 1, 4, 6)}
    latent = nodes.KSampler().sample(
        model, 101, 2, 2.0, "euler", "simple", positive, negative, one_frame
    )[0]
    images = nodes.VAEDecode().decode(vae, latent)[0]
    assert images.shape == (1, 32, 48, 3)
    np.testing.assert_allclose(reward, Brightness().score(images, [PROMPTS[1]]), rtol=1e-5)


def test_prompts_of_other_lengths_share_no_batch_and_token_numbers_stay_as_they_are() -> None:
    def encoded(tokens: int, ids: list[int]) -> Any:
        mask = (torch.arange(4)[None] < tokens).long()
        return [(torch.rand(1, 4, 2), {"attention_mask": mask, "t5xxl_ids": torch.tensor(ids)})]

    one, same_ids = encoded(3, [5, 6]), encoded(3, [5, 6])
    assert signature(one) == signature(same_ids)
    assert signature(one) != signature(encoded(4, [5, 6]))
    assert signature(one) != signature(encoded(3, [5, 7]))
    ((context, options),) = stack([one, same_ids, one], CPU)
    assert torch.equal(context, torch.cat([one[0][0], same_ids[0][0], one[0][0]]))
    assert torch.equal(options["attention_mask"], one[0][1]["attention_mask"])
    assert options["t5xxl_ids"].tolist() == [5, 6]
    ((context, _),) = stack([one, one], CPU)
    assert torch.equal(context, one[0][0])


def make_without_network(kind: str) -> ModelPatcher:
    """A MODEL of the class `kind` of comfy/supported_models.py that cannot be called."""
    if not hasattr(comfy.supported_models, kind):
        pytest.skip(f"this ComfyUI has no {kind}")
    config = getattr(comfy.supported_models, kind)({"disable_unet_model_creation": True})
    return ModelPatcher(config.get_model({}, ""), CPU, CPU)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("SeedVR2", "restores a picture or video that it is given"),
        ("HunyuanImage21Refiner", "refines a picture that it is given"),
        ("HunyuanVideo15_SR_Distilled", "enlarges a video that it is given"),
        ("WAN21_FlowRVS", "finds objects in a video that it is given"),
        ("PiD", "decodes a latent that it is given"),
        ("ACEStep", "makes sound or shapes"),
        ("ACEStep15", "makes sound or shapes"),
        ("MiniMaxMusic3", "makes sound or shapes"),
        ("Hunyuan3Dv2", "makes sound or shapes"),
        ("Hunyuan3Dv2_1", "makes sound or shapes"),
        ("Trellis2", "makes sound or shapes"),
        ("TripoSplat", "makes sound or shapes"),
        ("MiniMaxH3", "frames and their sound together"),
    ],
)
def test_models_that_draw_no_picture_from_a_prompt_are_refused(kind: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as refused:
        empty_latent(make_without_network(kind), make_vae(), 64, 64)
    assert "use a model that draws pictures" in str(refused.value)


@pytest.mark.parametrize(
    ("vae", "sentence"),
    [
        (SimpleNamespace(latent_dim=1, output_channels=2), "decodes sound or shapes"),
        (SimpleNamespace(latent_dim=2, output_channels=2), "decodes sound or shapes"),
        (None, "decodes videos but the model draws pictures"),
    ],
)
def test_vae_of_something_else_is_refused(vae: Any, sentence: str) -> None:
    model = make_patcher("Flux", FLUX)
    with pytest.raises(ValueError, match=sentence) as refused:
        empty_latent(model, vae or tiny.make_video_vae(), 64, 64)
    assert "load the VAE that belongs to the model" in str(refused.value)


def run(model: ModelPatcher, vae: VAE, clip: CLIP) -> Any:
    return CalibriCalibrate.execute(
        model=model,
        clip=clip,
        vae=vae,
        prompts=PROMPTS,
        held_out=("a black cross", "a large red triangle"),
        reward=Brightness(),
        negative="",
        sampler="euler",
        scheduler="simple",
        steps=1,
        cfg=1.0,
        guidance=3.5,
        width=16,
        height=16,
        granularity="block",
        profile="default",
        generations=1,
        seed=1,
        run_name="trial",
        bucket_size=1,
        validate_every=1,
    )


def test_a_video_model_is_calibrated_on_single_frames(
    clip: CLIP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    model, vae = make("Wan")
    preset, report = run(model, vae, clip).args
    assert preset.family == "wan"
    assert report.shape[-1] == 3
    assert (tmp_path / "calibri" / "trial" / "before_after.png").is_file()


def test_a_refused_model_leaves_no_folder(
    clip: CLIP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    if not hasattr(comfy.supported_models, "WAN21_FlowRVS"):
        pytest.skip("this ComfyUI has no such model")
    with pytest.raises(ValueError, match="that it is given"):
        run(make_patcher("WAN21_FlowRVS", tiny.WAN), tiny.make_video_vae(), clip)
    assert not list(tmp_path.iterdir())
