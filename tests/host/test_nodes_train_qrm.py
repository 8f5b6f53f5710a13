"""Train QRM on the demo model in ComfyUI: it trains, can be cancelled, goes on, and saves a QRM."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sd
import folder_paths
import pytest
import torch
from torch import Tensor

from comfyui_calibri.demo.prompts import generate_prompts
from comfyui_calibri.demo.weights import DIT, TEXT_ENCODER, VAE, WEIGHTS
from comfyui_calibri.nodes.demo_clip import load_text_encoder
from comfyui_calibri.nodes.encoded_prompts import EncodedPrompts
from comfyui_calibri.nodes.inspect_qrm import CalibriInspectQRM
from comfyui_calibri.nodes.qrm import with_qrm
from comfyui_calibri.nodes.qrm_trainee import ComfyTrainee, Drawing
from comfyui_calibri.nodes.qrm_training import _module
from comfyui_calibri.nodes.rewards import CalibriDemoReward
from comfyui_calibri.nodes.train_qrm import CalibriTrainQRM
from comfyui_calibri.nodes.trainable import training_mode
from comfyui_calibri.qrm.files import load_qrm
from comfyui_calibri.rewards.protocol import Card

from .tiny_patchers import Brightness, make_clip, make_model, make_vae, sample

pytestmark = pytest.mark.oldest

INPUTS: dict[str, Any] = {
    "prompts": tuple(generate_prompts(4, 1)),
    "held_out": tuple(generate_prompts(2, 1, "test")),
    "negative": "",
    "scheduler": "simple",
    "sampling_steps": 2,
    "cfg": 1.0,
    "guidance": 3.5,
    "width": 64,
    "height": 64,
    "mode": "add",
    "steps": 3,
    "batch": 2,
    "accumulate": 1,
    "learning_rate": 0.01,
    "seed": 0,
    "run_name": "test",
    "flow_weight": 0.0,
    "late_weight": 1.0,
    "last_weight": 1.0,
    "difficulty_weight": 0.1,
    "size_weight": 0.01,
    "backward_steps": 1,
    "validate_every": 2,
    "patience": 0,
    "precision": "float32",
    "checkpointing": True,
}


class Light(Brightness):
    """Likes light pictures, which is learnt in a few steps."""

    card = Card("how light a picture is", (0.2, 0.8), "", 0, None)


@pytest.fixture(scope="module")
def demo(newest: bool, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """As a node's loaders give it: made in inference mode."""
    with torch.inference_mode():
        if not newest:  # which detects no model as narrow as the demo's
            folder = tmp_path_factory.mktemp("encoder")
            parts = {"model": make_model("flux"), "clip": make_clip(folder), "vae": make_vae()}
            return {**parts, "reward": Light()}
        state = comfy.utils.load_torch_file(str(WEIGHTS / VAE))
        return {
            "model": comfy.sd.load_diffusion_model(str(WEIGHTS / DIT)),
            "clip": load_text_encoder(WEIGHTS / TEXT_ENCODER),
            "vae": comfy.sd.VAE(sd=state),
            "reward": CalibriDemoReward.execute().result[0],
        }


def train(demo: dict[str, Any], **changes: Any) -> Any:
    with torch.inference_mode():
        return CalibriTrainQRM.execute(**{**demo, **INPUTS, **changes})


def weights(file: Any) -> list[float]:
    return torch.cat([p.flatten() for p in file.module.parameters()]).tolist()


def test_prompts_that_are_encoded_otherwise_take_calls_of_their_own(
    demo: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = (demo["model"], demo["clip"], demo["vae"], INPUTS["prompts"])
    drawing = Drawing("simple", 2, 1.0, 3.5, 64, 64, "")
    rows = (0, 1, 2, 1)
    with torch.inference_mode(), training_mode():
        trainee = ComfyTrainee(*parts, drawing)
        module = _module(trainee, demo["model"], "add", 0)
        for name, parameter in module.named_parameters():
            if ".up" in name:
                torch.nn.init.normal_(parameter, std=0.05)
        x, sigma = torch.randn(4, *trainee.shape), torch.tensor([0.9, 0.7, 0.5, 0.3])
        together = trainee.denoised(x, sigma, rows, module)
        monkeypatch.setattr(EncodedPrompts, "signature", lambda self, row: row % 2)
        apart = trainee.denoised(x, sigma, rows, module)
        assert torch.allclose(apart.x0, together.x0, atol=1e-4)
        assert torch.allclose(apart.quality, together.quality, atol=1e-4)
        (path, *_) = together.vectors.paths
        assert together.vectors.add[path].std() > 0
        assert torch.allclose(apart.vectors.add[path], together.vectors.add[path], atol=1e-4)


def test_it_trains_after_a_cancel_as_if_there_was_none(
    demo: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, report = train(demo, run_name="whole").result
    seen: list[int] = []
    real = demo["reward"].score

    def cancelling(images: Tensor, prompts: Sequence[str]) -> Tensor:
        if images.requires_grad:
            seen.append(1)
            if len(seen) == 2:
                raise comfy.model_management.InterruptProcessingException
        scores: Tensor = real(images, prompts)
        return scores

    monkeypatch.setattr(demo["reward"], "score", cancelling)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        train(demo, run_name="halted")
    done = len(seen)
    halted = train(demo, run_name="halted").result[0]
    assert len(seen) - done == 2  # of three steps, the first was not trained again
    assert weights(halted) == weights(whole)
    assert report.shape[0] == 1
    assert bool((report > 0).any())


def test_what_it_saves_acts_on_the_model(demo: dict[str, Any]) -> None:
    changes = {"steps": 4, "learning_rate": 0.05, "precision": "bfloat16"}
    out = train({**demo, "reward": Light()}, run_name="bright", **changes)
    file = out.result[0]
    record = file.training
    assert record["best_step"] > 0
    assert record["stopping_reward"] > record["plain_reward"]
    folder = Path(folder_paths.get_output_directory()) / "calibri" / "qrm"
    (path,) = folder.glob("bright-*/qrm.safetensors")
    with torch.inference_mode():
        plain = sample(demo["model"], demo["clip"], cfg=1.0)
        acting = sample(with_qrm(demo["model"], load_qrm(path)), demo["clip"], cfg=1.0)
        again = sample(demo["model"], demo["clip"], cfg=1.0)
    assert not torch.equal(plain, acting)
    assert torch.equal(plain, again)


def test_a_reward_without_a_gradient_is_searched(demo: dict[str, Any]) -> None:
    class Blind(Light):
        name, differentiable = "blind", False

        def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
            assert not images.requires_grad
            return super().score(images, prompts)

    out = train({**demo, "reward": Blind()}, run_name="blind", steps=1, batch=1)
    assert "plain" in out.ui["text"][0]


def test_pictures_are_learnt_from_where_there_is_one_for_each_prompt(demo: dict[str, Any]) -> None:
    images = torch.rand(4, 64, 64, 3)
    flow = {"flow_weight": 1.0, "late_weight": 0.0, "last_weight": 0.0, "steps": 1}
    train(demo, run_name="flow", images=images, **flow)
    with pytest.raises(ValueError, match="3 images and 4 prompts"):
        train(demo, run_name="flow", images=images[:3], **flow)
    with pytest.raises(ValueError, match="no latents"):
        train(demo, run_name="flow", **flow)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"flow_weight": 0.0, "late_weight": 0.0, "last_weight": 0.0}, "are all 0"),
        ({"backward_steps": 3}, "backward_steps is 3 and sampling_steps 2"),
        ({"run_name": "../away"}, "cannot name a file"),
    ],
)
def test_what_cannot_be_is_said_before_the_run(changes: dict[str, Any], said: str) -> None:
    names = ("run_name", "flow_weight", "late_weight", "last_weight")
    asked = {name: INPUTS[name] for name in (*names, "backward_steps", "sampling_steps")}
    found = CalibriTrainQRM.validate_inputs(**{**asked, **changes})
    assert said in str(found)
    assert CalibriTrainQRM.validate_inputs(**asked) is True


def test_inspection_says_how_much_the_prompt_decides(demo: dict[str, Any]) -> None:
    # The state of another test's run, if there was one, or made now.
    changes = {"steps": 4, "learning_rate": 0.05, "precision": "bfloat16"}
    out = train({**demo, "reward": Light()}, run_name="bright", **changes)
    file = out.result[0]
    given = {name: demo[name] for name in ("model", "clip", "vae")}
    asked = {"scheduler": "simple", "sampling_steps": 2, "cfg": 1.0, "width": 64, "height": 64}
    with torch.inference_mode():
        out = CalibriInspectQRM.execute(
            **given, **asked, qrm=file, prompts=INPUTS["prompts"], reward=Light()
        )
        picture, numbers = out.result
    told = json.loads(numbers)
    assert picture.ndim == 4
    assert len(told["levels"]) == 2
    assert len(told["reached_quality"]) == len(told["expected_quality"]) == 4
    assert set(told["size"]) >= {"image: attention gate", "text: mlp shift", "joint: fused scale"}
    assert len(told["size"]["image: attention gate"]) in (2, 3)  # double blocks
    assert 0 <= told["between_prompts_overall"] <= 1
