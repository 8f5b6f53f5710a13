"""EasyCache, which keeps each chunk's prediction under its conditioning's uuid.

Not for v0.3.64, whose EasyCache adds the differences of all chunks of a batch to all of them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from comfy_extras.nodes_easycache import EasyCacheNode
from torch import Tensor

from comfyui_calibri.calibri.presets import Member
from comfyui_calibri.nodes.patching import backbone_of

from . import folded
from .combinations import (
    SCALE,
    WEIGHTS,
    apply,
    assert_alike,
    assert_different,
    call,
    encode,
    gains,
    make_preset,
    noise,
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


@pytest.fixture
def picture(clip: CLIP) -> Any:
    positive, negative = encode(clip, "a red circle"), encode(clip, "a blue square")
    return lambda model, cfg=SCALE, **more: sample(model, positive, negative, cfg, **more)


def easy(model: ModelPatcher) -> ModelPatcher:
    cached: ModelPatcher = call(EasyCacheNode, model=model, **CACHE)
    return cached


CACHE = {"reuse_threshold": 100.0, "start_percent": 0.0, "end_percent": 1.0, "verbose": False}
STEPS = torch.tensor([1.0, 0.9, 0.8, 0.7, 0.6, 0.0])


COMPUTED = 2  # steps until EasyCache has seen a change; and no change is too large for it


@pytest.mark.parametrize("kind", ["single", "ensemble"])
def test_easycache_keeps_each_members_own_prediction(
    model: ModelPatcher, clip: CLIP, picture: Any, kind: str
) -> None:
    preset = make_preset(model, kind)
    ((text, extra),) = encode(clip, "a red circle")
    members = [
        folded.velocity(
            folded.folded(model.model, backbone_of(model), values),
            model.model,
            text,
            extra["pooled_output"],
        )
        for values in gains(model, preset)
    ]
    step, differences = 0, [torch.zeros(1)] * len(members)

    def predict(x: Tensor, sigma: float) -> Tensor:
        nonlocal step, differences
        step += 1
        if step <= COMPUTED:
            velocities = [member(x, sigma) for member in members]
            differences = [velocity - x for velocity in velocities]
        else:
            # EasyCache adds in place: in float32 the latent, x0 + sigma * v, changes with it.
            guesses = [x + difference for difference in differences]
            velocities = [(x - (guess - sigma * guess)) / sigma for guess in guesses]
        return sum(w * v for w, v in zip(WEIGHTS[kind], velocities, strict=True))

    schedule = model.model.model_sampling
    x = schedule.noise_scaling(STEPS[0], noise(), torch.zeros(2, 16, 8, 8))
    x = schedule.inverse_noise_scaling(STEPS[-1], folded.euler(predict, x, STEPS.tolist()))
    expected = model.model.process_latent_out(x)
    for cached in (easy(apply(model, preset)), apply(easy(model), preset)):
        assert_alike(picture(cached, 1.0, sigmas=STEPS), expected)
    assert_different(expected, picture(apply(model, preset), 1.0, sigmas=STEPS))


def test_easycache_keeps_both_predictions_of_a_guided_preset(
    model: ModelPatcher, picture: Any
) -> None:
    """Of equal members and plain weights, so that a single preset under plain guidance judges."""
    guided, single = make_preset(model, "guided"), make_preset(model, "single")
    coefficients = single.members[0].coefficients
    members = (Member(coefficients, SCALE), Member(coefficients, 1.0 - SCALE))
    equal = replace(guided, members=members)
    expected = picture(easy(apply(model, single)), sigmas=STEPS)
    for cached in (easy(apply(model, equal)), apply(easy(model), equal)):
        assert_alike(picture(cached, 1.0, sigmas=STEPS), expected)
    assert_different(expected, picture(apply(model, equal), sigmas=STEPS))
