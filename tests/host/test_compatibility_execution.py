"""Presets beside nodes that change how the model is run: compiled, cached, in windows, shifted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.samplers
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from comfy_extras.nodes_context_windows import ContextWindowsManualNode
from comfy_extras.nodes_easycache import LazyCacheNode
from comfy_extras.nodes_model_advanced import ModelSamplingFlux, ModelSamplingSD3
from comfy_extras.nodes_torch_compile import TorchCompileModel
from torch import Tensor

from .combinations import (
    KINDS,
    SCALE,
    apply,
    assert_alike,
    assert_combines,
    assert_different,
    call,
    encode,
    make_preset,
    sample,
)
from .tiny_patchers import make_clip, make_model

pytestmark = pytest.mark.oldest


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


def loadable(family: str) -> ModelPatcher:
    """A model that says how to load it again, as loaders do for the nodes that need a copy."""
    model = make_model(family)
    model.cached_patcher_init = (lambda **_: make_model(family), ())
    return model


@pytest.fixture
def picture(clip: CLIP) -> Any:
    positive, negative = encode(clip, "a red circle"), encode(clip, "a blue square")
    return lambda model, cfg=SCALE, **more: sample(model, positive, negative, cfg, **more)


@pytest.mark.slow
@pytest.mark.usefixtures("steady_memory")
@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_model_never_gives_a_stale_picture(picture: Any, kind: str) -> None:
    torch._dynamo.reset()
    model = loadable("sd3")
    one_step = lambda m: picture(m, sigmas=STEPS[-2:])  # noqa: E731

    def compiled(m: ModelPatcher) -> ModelPatcher:
        # With the node's own choice of guards; "inductor" would take minutes here.
        covered: ModelPatcher = call(TorchCompileModel, model=m, backend="eager")
        return covered

    preset, other = make_preset(model, kind), make_preset(model, kind, seed=5)
    expected = {
        "plain": one_step(model),
        "preset": one_step(apply(model, preset)),
        "other": one_step(apply(model, other)),
    }
    assert_different(expected["preset"], expected["other"])
    cover = compiled(model)
    after = {"plain": cover, "preset": apply(cover, preset), "other": apply(cover, other)}
    for name in ("plain", "preset", "plain", "other", "preset", "plain"):
        assert_alike(one_step(after[name]), expected[name], 1e-5)
    before = compiled(apply(model, preset))
    assert_alike(one_step(before), expected["preset"], 1e-5)
    assert_alike(one_step(cover), expected["plain"], 1e-5)


def lazy(model: ModelPatcher) -> ModelPatcher:
    cached: ModelPatcher = call(LazyCacheNode, model=model, **CACHE)
    return cached


CACHE = {"reuse_threshold": 100.0, "start_percent": 0.0, "end_percent": 1.0, "verbose": False}
STEPS = torch.tensor([1.0, 0.9, 0.8, 0.7, 0.6, 0.0])


@pytest.mark.parametrize("kind", KINDS)
def test_lazycache_caches_the_presets_predictions(
    model: ModelPatcher, picture: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_steps = lambda m, cfg: picture(m, cfg, sigmas=STEPS)  # noqa: E731
    assert_combines(model, kind, lazy, in_steps, monkeypatch)


@pytest.mark.parametrize("kind", KINDS)
def test_context_windows_are_predicted_one_by_one(
    model: ModelPatcher, picture: Any, kind: str, newest: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def windows(m: ModelPatcher) -> ModelPatcher:
        settings = {
            "context_length": 6,
            "context_overlap": 2,
            "context_schedule": "standard_static",
            "context_stride": 1,
            "closed_loop": False,
            "fuse_method": "pyramid",
            "dim": 2,
            **({"freenoise": False} if newest else {}),
        }
        return call(ContextWindowsManualNode, model=m, **settings)

    # Along another axis than the batch ComfyUI takes one picture, or video, at a time.
    one = lambda m, cfg: picture(m, cfg, rows=1)  # noqa: E731
    assert_combines(model, kind, windows, one, monkeypatch)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("node", ["ModelSamplingFlux", "ModelSamplingSD3"])
def test_a_shifted_schedule_before_or_after_the_preset(
    model: ModelPatcher, picture: Any, node: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shifted(m: ModelPatcher) -> ModelPatcher:
        if node == "ModelSamplingSD3":
            return call(ModelSamplingSD3, model=m, shift=5.0)
        size = {"width": 1024, "height": 1024}
        return call(ModelSamplingFlux, model=m, max_shift=2.0, base_shift=0.5, **size)

    def scheduled(m: ModelPatcher, cfg: float = 1.0) -> Tensor:
        schedule = m.get_model_object("model_sampling")
        return picture(m, cfg, sigmas=comfy.samplers.calculate_sigmas(schedule, "simple", 4))

    assert_combines(model, kind, shifted, scheduled, monkeypatch)
    # The preset's window is percent of the schedule that is sampled.
    preset, window = make_preset(model, kind), {"end_percent": 0.6}
    late = scheduled(shifted(apply(model, preset, **window)))
    assert torch.equal(late, scheduled(apply(shifted(model), preset, **window)))
    assert_different(late, scheduled(apply(shifted(model), preset)))
