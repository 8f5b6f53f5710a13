"""What an evaluation draws: the pictures of ComfyUI's own nodes, with each kind of preset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.sample
import numpy as np
import pytest
import torch

from comfyui_calibri.calibri.comparison import Setting
from comfyui_calibri.calibri.evaluation import Sample
from comfyui_calibri.nodes.apply import CalibriApply
from comfyui_calibri.nodes.conditioning import encode
from comfyui_calibri.nodes.patching import backbone_of

from .evaluation_cases import PROMPTS, SIDE, evaluation_inputs, painter, preset
from .tiny_fixtures import inference  # noqa: F401
from .tiny_patchers import Brightness

pytestmark = pytest.mark.oldest


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with torch.inference_mode():
        return evaluation_inputs(tmp_path_factory.mktemp("clip"))


def stock_picture(
    inputs: dict[str, Any], model: Any, sample: Sample, setting: Setting
) -> np.ndarray:
    """What the stock nodes draw: CLIP Text Encode, FluxGuidance, KSampler, VAE Decode."""
    positive = encode(inputs["clip"], PROMPTS[sample.prompt], inputs["guidance"])
    negative = encode(inputs["clip"], inputs["negative"], inputs["guidance"])
    latent = torch.zeros(1, 16, SIDE // 8, SIDE // 8)
    noise = comfy.sample.prepare_noise(latent, sample.seed)
    latents = comfy.sample.sample(
        model,
        noise,
        setting.steps,
        setting.cfg,
        setting.sampler,
        setting.scheduler,
        positive,
        negative,
        latent,
        seed=sample.seed,
        disable_pbar=True,
    )
    image = inputs["vae"].decode(latents)[0].float().clamp(0, 1)
    return (image * 255.0).round().to(torch.uint8).numpy()


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_plain_and_calibrated_pictures_are_those_of_the_stock_nodes(
    inputs: dict[str, Any], sampler: str
) -> None:
    """To the last bit, alone in their batch."""
    setting = Setting(3, 2.0, sampler, "simple", SIDE, SIDE)
    drawing = painter(inputs, inputs["preset_1"])
    drawing.plan(setting, [Sample(0, 5)])
    calibrated = CalibriApply.execute(inputs["model"], inputs["preset_1"], 1.0, 0.0, 1.0).args[0]
    for variant, model in enumerate((inputs["model"], calibrated)):
        sample = Sample(1, 77)
        drawn = drawing.draw(variant, setting, [sample])
        np.testing.assert_array_equal(
            drawn.images[0], stock_picture(inputs, model, sample, setting)
        )
        assert drawn.nfe == 2 * (5 if sampler == "heun" else 3)


def test_ensembles_and_guided_members_are_drawn_and_counted(inputs: dict[str, Any]) -> None:
    backbone = backbone_of(inputs["model"])
    ensemble, guided = preset(backbone, 0.9, 1.1), preset(backbone, 0.9, 1.1, scale=2.0)
    drawing = painter(inputs, ensemble, guided)
    setting = Setting(2, 1.0, "euler", "simple", SIDE, SIDE)
    bucket = [Sample(prompt, 10 + prompt) for prompt in range(3)]
    assert [p for batch in drawing.plan(setting, bucket) for p in batch] == [0, 1, 2]
    drawn = [drawing.draw(variant, setting, bucket) for variant in range(3)]
    assert [one.nfe for one in drawn] == [2, 4, 4]
    for one in drawn[1:]:
        assert not np.array_equal(one.images, drawn[0].images)
    guided_model = CalibriApply.execute(inputs["model"], guided, 1.0, 0.0, 1.0).args[0]
    for place, sample in enumerate(bucket):
        # Other batch sizes differ in the last bits, a byte at most.
        stock = stock_picture(inputs, guided_model, sample, setting)
        assert np.abs(drawn[2].images[place].astype(int) - stock.astype(int)).max() <= 1


def test_a_reward_of_latents_sees_what_was_sampled(inputs: dict[str, Any]) -> None:
    class Energy(Brightness):
        name, accepts = "energy", "latents"

        def score(self, latents: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
            assert latents.shape == (len(prompts), 16, SIDE // 8, SIDE // 8)
            return latents.square().mean(dim=(1, 2, 3))

    setting = Setting(1, 1.0, "euler", "simple", SIDE, SIDE)
    drawing = painter(inputs, reward=Energy())
    drawing.plan(setting, [Sample(0, 5)])
    assert drawing.draw(0, setting, [Sample(0, 5), Sample(2, 6)]).scores["energy"].min() > 0
