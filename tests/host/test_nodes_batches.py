"""How ComfyUI's evaluator cuts its work into batches, and where others are heard within one."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import pytest
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP

from comfyui_calibri.calibri.coefficients import coefficient_space
from comfyui_calibri.calibri.ensemble_space import EnsembleSpace, ensemble_space
from comfyui_calibri.calibri.evaluation import Sample
from comfyui_calibri.nodes.patching import backbone_of
from comfyui_calibri.nodes.sampling import ComfyEvaluator, SamplerSettings

from .tiny_fixtures import clip, inference  # noqa: F401
from .tiny_patchers import Brightness, make_model, make_vae

pytestmark = pytest.mark.oldest

BUCKET = (Sample(0, 1), Sample(0, 2), Sample(0, 3), Sample(0, 4))


@pytest.fixture(scope="module")
def model() -> ModelPatcher:
    return make_model()


def make_evaluator(model: ModelPatcher, clip: CLIP, **more: Any) -> ComfyEvaluator:  # noqa: F811
    settings = SamplerSettings("euler", "simple", 2, 1.0, 3.5, 64, 64, "")
    return ComfyEvaluator(
        model, clip, make_vae(), Brightness(), searched(model), settings, ["a red circle"], **more
    )


def searched(model: ModelPatcher) -> EnsembleSpace:
    return ensemble_space(coefficient_space(backbone_of(model), "gate"), 1)


def test_what_other_models_take_of_memory_does_not_change_the_plan(
    monkeypatch: pytest.MonkeyPatch,
    model: ModelPatcher,
    clip: CLIP,  # noqa: F811
) -> None:
    management, size = comfy.model_management, model.model_size()
    plan = make_evaluator(model, clip).plan(4, BUCKET)
    assert [len(batch) for batch in plan] == [16]
    monkeypatch.setattr(management, "get_free_memory", lambda *_, **__: 1.0)
    assert make_evaluator(model, clip).plan(4, BUCKET) == plan
    # What the device and the model themselves leave does.
    channels = model.model.latent_format.latent_channels
    four = model.model.memory_required([4, channels, 8, 8])
    monkeypatch.setattr(management, "minimum_inference_memory", lambda: 0.0)
    monkeypatch.setattr(management, "get_total_memory", lambda *_, **__: size + 1.6 * four)
    smaller = make_evaluator(model, clip).plan(4, BUCKET)
    assert [len(batch) for batch in smaller] == [4, 4, 4, 4]


def test_others_are_heard_at_each_step_and_before_decoding_and_scoring(
    model: ModelPatcher,
    clip: CLIP,  # noqa: F811
) -> None:
    heard: list[tuple[int, int]] = []
    judge = make_evaluator(model, clip, watch=lambda done, steps: heard.append((done, steps)))
    judge.run(((0, 0),), searched(model).identity[None], BUCKET)
    assert heard == [(0, 2), (1, 2), (2, 2), (2, 2), (2, 2)]


def test_what_is_encoded_is_not_encoded_again_when_the_loaders_ran_again(
    monkeypatch: pytest.MonkeyPatch,
    model: ModelPatcher,
    clip: CLIP,  # noqa: F811
) -> None:
    vector = searched(model).identity[None]
    before, after = make_evaluator(model, clip), make_evaluator(model, clip)
    before.plan(1, BUCKET)
    monkeypatch.setattr(clip, "encode_from_tokens_scheduled", None)
    after.take_over(before)
    assert after.plan(1, BUCKET) == before.plan(1, BUCKET)
    assert (
        after.run(((0, 0),), vector, BUCKET).tobytes()
        == before.run(((0, 0),), vector, BUCKET).tobytes()
    )
