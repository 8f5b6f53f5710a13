"""Train LoRA with AHPA on tiny models: what it saves the stock loader loads, and it goes on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.model_management
import comfy.sd
import comfy.utils
import folder_paths
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from PIL import Image

from comfyui_calibri.ahpa.methods import METHODS
from comfyui_calibri.ahpa.recipe import TIMES, Recipe
from comfyui_calibri.nodes import train_ahpa_inputs
from comfyui_calibri.nodes.train_ahpa import CalibriTrainAHPA

from .tiny_fixtures import inference  # noqa: F401
from .tiny_patchers import make_clip, make_model, make_vae, sample

pytestmark = pytest.mark.oldest

CAPTIONS = ["a red circle", "a blue star", "a green ring"]
STEPS = 4


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> CLIP:
    with torch.inference_mode():
        return make_clip(Path(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def model() -> ModelPatcher:
    with torch.inference_mode():
        return make_model()


@pytest.fixture(scope="module")
def vae() -> VAE:
    with torch.inference_mode():
        return make_vae()


@pytest.fixture
def loras(output: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = output / "loras"
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(folder)], set()))
    return folder


def widgets(**changes: Any) -> dict[str, Any]:
    """The node's widgets at their defaults, small, with changes; in lists, as ComfyUI has them."""
    values = {
        given.id: given.default
        for given in train_ahpa_inputs.training_inputs()
        if getattr(given, "default", None) is not None
    }
    values |= {"steps": STEPS, "batch": 2, "rank": 2, "size": 64, "warm_up": 0, **changes}
    return {name: [value] for name, value in values.items()}


def train(model: Any, clip: CLIP, vae: VAE, **changes: Any) -> Any:
    pictures = torch.rand(3, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    given = {"images": [pictures], "captions": list(CAPTIONS), **widgets(**changes)}
    given |= {"model": [model], "clip": [clip], "vae": [vae]}
    return CalibriTrainAHPA.execute(**given).result


def test_it_lists_the_methods_that_there_are() -> None:
    assert tuple(METHODS) == train_ahpa_inputs.METHODS
    assert train_ahpa_inputs.TIMES == TIMES
    names = {name for name in widgets() if name in Recipe.__dataclass_fields__}
    assert {"method", "weight", "router_rate", "entropy_off", "later_block"} <= names


def test_what_it_saves_the_stock_loader_loads_and_the_model_stays_as_it_is(
    model: ModelPatcher, clip: CLIP, vae: VAE, loras: Path
) -> None:
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    plain = sample(model, clip)
    found, lora, losses, plot, router = train(model, clip, vae, learning_rate=0.05)
    (path,) = loras.glob("ahpa_00001.safetensors")
    held = comfy.utils.load_torch_file(str(path), safe_load=True)
    assert set(held) == set(lora)
    name = "diffusion_model.double_blocks.0.img_attn.qkv"
    assert {f"{name}.lora_up.weight", f"{name}.lora_down.weight", f"{name}.alpha"} <= set(held)
    loaded, _ = comfy.sd.load_lora_for_models(model, None, held, 1.0, 0.0)
    assert len(loaded.patches) == sum(name.endswith(".alpha") for name in held)
    changed = sample(loaded, clip)
    assert not torch.allclose(changed, plain, atol=1e-3)
    assert torch.equal(sample(found, clip), changed)
    assert torch.equal(sample(model, clip), plain)
    after = model.model.state_dict()
    assert all(torch.equal(before[name], value) for name, value in after.items())
    assert losses.shape == (1, 420, 900, 3)
    assert plot.shape == (1, 640, 900, 3)
    assert router.method == "ahpa"
    assert {level.group for level in router.levels} == {"middle", "deep"}


def test_cancel_keeps_the_state_and_the_same_settings_go_on_to_the_same_bits(
    model: ModelPatcher, clip: CLIP, vae: VAE, loras: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, whole, *_ = train(model, clip, vae, run_name="whole")
    calls = SimpleNamespace(count=0)
    bar = comfy.utils.ProgressBar.update_absolute

    def cancelled(self: Any, value: int, *rest: Any) -> None:
        calls.count = value
        if value == 2:
            comfy.model_management.interrupt_current_processing()
            comfy.model_management.throw_exception_if_processing_interrupted()
        bar(self, value, *rest)

    monkeypatch.setattr(comfy.utils.ProgressBar, "update_absolute", cancelled)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        train(model, clip, vae, run_name="cut")
    monkeypatch.setattr(comfy.utils.ProgressBar, "update_absolute", bar)
    assert calls.count == 2
    assert len(list(loras.glob("*.safetensors"))) == 1
    _, resumed, *_ = train(model, clip, vae, run_name="cut")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert len(list(loras.glob("*.safetensors"))) == 2  # nothing is overwritten


@pytest.mark.parametrize("method", ["none", "latents", "sra"])
def test_baselines_train_too(
    method: str, model: ModelPatcher, clip: CLIP, vae: VAE, loras: Path
) -> None:
    _, lora, _, _, router = train(model, clip, vae, method=method, steps=1)
    assert any(value.abs().sum() > 0 for name, value in lora.items() if "lora_up" in name)
    assert router is None


def test_a_trained_router_is_for_the_controls(
    model: ModelPatcher, clip: CLIP, vae: VAE, loras: Path
) -> None:
    router = train(model, clip, vae, steps=1)[-1]
    given = {"router": [router]}
    pictures = torch.rand(3, 64, 64, 3)
    given |= widgets(method="reversed", steps=1, run_name="reversed")
    given |= {"model": [model], "clip": [clip], "vae": [vae]}
    found = CalibriTrainAHPA.execute(images=[pictures], captions=["a ring"], **given).result
    assert found[-1] is None


def test_repa_aligns_to_an_image_encoder(
    model: ModelPatcher, clip: CLIP, vae: VAE, loras: Path
) -> None:
    class Vision:
        def encode_image(self, picture: torch.Tensor) -> dict[str, torch.Tensor]:
            cells = torch.nn.functional.adaptive_avg_pool2d(picture.movedim(-1, 1), 4)
            tokens = cells.flatten(2).transpose(1, 2)
            first = tokens.mean(1, keepdim=True)
            return {"penultimate_hidden_states": torch.cat([first, tokens], 1)}

    pictures = torch.rand(3, 64, 64, 3)
    given = widgets(method="repa", steps=1) | {"clip_vision": [Vision()]}
    given |= {"model": [model], "clip": [clip], "vae": [vae]}
    CalibriTrainAHPA.execute(images=[pictures], captions=["a ring"], **given)
    assert list(loras.glob("*.safetensors"))


def validated(**changes: Any) -> bool | str:
    names = ("folder", "size", "filename_prefix", "run_name", "method", "levels")
    linked = {name: [None] for name in changes.pop("linked", ("images", "captions"))}
    given = widgets(**changes)
    return CalibriTrainAHPA.validate_inputs(**{name: given[name] for name in names}, **linked)


def test_what_can_be_known_is_said_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path))
    assert validated() is True
    folder = tmp_path / "mine"
    folder.mkdir()
    expected = {
        "no pictures to train on": validated(linked=()),
        "have no captions": validated(linked=("images",)),
        "input/mine has no pictures": validated(linked=(), folder="mine"),
        "lies outside": validated(folder="../mine"),
        "connect clip_vision": validated(method="repa"),
        "needs a router": validated(method="frozen"),
        "levels is empty": validated(levels=" "),
        "cannot name a file": validated(filename_prefix="../x"),
    }
    Image.new("RGB", (80, 40)).save(folder / "a.png")
    expected["a.png has no caption"] = validated(linked=(), folder="mine")
    (folder / "a.txt").write_text("a ring")
    expected["80 x 40 pixels, less than the crop of 64"] = validated(linked=(), folder="mine")
    for words, said in expected.items():
        assert isinstance(said, str), words
        assert words in said
    assert validated(linked=(), folder="mine", size=32) is True


def test_what_shows_in_the_run_is_one_sentence(
    model: ModelPatcher, clip: CLIP, vae: VAE, loras: Path
) -> None:
    with torch.inference_mode():
        other = make_vae(latent_channels=4)
    with pytest.raises(ValueError, match="load the VAE that belongs to the model"):
        train(model, clip, other)
    with pytest.raises(ValueError, match="There is no level 'roof'"):
        train(model, clip, vae, levels="roof")
    with pytest.raises(ValueError, match="has 4 blocks"):
        train(model, clip, vae, block=9)
    with pytest.raises(ValueError, match="multiple of 32"):
        train(model, clip, vae, size=40)
    assert not list(loras.glob("*"))
