"""AHPA Router on tiny models, and routers as files in models/ahpa."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from comfy_execution.graph_utils import ExecutionBlocker
from PIL import Image

from comfyui_calibri.ahpa.hidden import HiddenReader, chosen_block, read_blocks
from comfyui_calibri.ahpa.levels import Level, chosen_levels, read_levels
from comfyui_calibri.ahpa.router import DynamicRouter
from comfyui_calibri.ahpa.router_file import TrainedRouter, save_router
from comfyui_calibri.demo.weights import VAE as DEMO_VAE
from comfyui_calibri.demo.weights import WEIGHTS
from comfyui_calibri.nodes import ahpa_inspection
from comfyui_calibri.nodes.ahpa_router import CalibriLoadAHPARouter, CalibriSaveAHPARouter
from comfyui_calibri.nodes.ahpa_targets import encoder_of
from comfyui_calibri.nodes.conditioning import encode
from comfyui_calibri.nodes.frozen_copy import FrozenCopy
from comfyui_calibri.nodes.inspect_ahpa import CalibriAHPARouter
from comfyui_calibri.nodes.patching import diffusion_model
from comfyui_calibri.training.draws import generator, noise

from .tiny_fixtures import clip, inference, model  # noqa: F401
from .tiny_patchers import make_vae, sample

pytestmark = pytest.mark.oldest

PICTURES, LEVELS = 6, 3  # of noise


@pytest.fixture(scope="module")
def vae() -> VAE:
    with torch.inference_mode():
        return make_vae()


@pytest.fixture
def router(vae: VAE) -> TrainedRouter:
    torch.manual_seed(0)
    levels = chosen_levels(read_levels(encoder_of(vae)), "middle, deep")
    made = DynamicRouter(levels).eval().requires_grad_(False)
    recipe = {"block": 2, "width": 8, "steps": 3}
    return TrainedRouter("ahpa", levels, 128, made, {"recipe": recipe})


@pytest.fixture
def routers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """models/ahpa."""
    folder = tmp_path / "ahpa"
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, "ahpa", ([str(folder)], {".safetensors"})
    )
    return folder


def pictures(count: int = PICTURES) -> torch.Tensor:
    return torch.rand(count, 64, 64, 3, generator=torch.Generator().manual_seed(0))


def look(router: TrainedRouter | None, **linked: Any) -> tuple[Any, ...]:
    given = {name: value if isinstance(value, list) else [value] for name, value in linked.items()}
    given = {"size": [64], "pictures": [32], "noise_levels": [LEVELS], **given}
    found: tuple[Any, ...] = CalibriAHPARouter.execute(router=[router], **given).result
    return found


def test_what_is_connected_decides_what_is_shown(
    router: TrainedRouter,
    model: ModelPatcher,  # noqa: F811
    clip: CLIP,  # noqa: F811
    vae: VAE,
) -> None:
    plot, *rest, numbers = look(router)
    assert plot.shape == (1, 640, 900, 3)
    assert all(isinstance(value, ExecutionBlocker) for value in rest)
    told = json.loads(numbers)
    assert told["beta"]["deep"] == pytest.approx([0.5] * 51)  # as it began
    assert told["variation"] == 0

    _, features, nothing, numbers = look(router, vae=vae, images=pictures(2))
    assert features.shape == (1, 600, 410, 3)
    assert isinstance(nothing, ExecutionBlocker)
    assert list(json.loads(numbers)["features"]) == ["shallow", "middle", "deep"]

    images = [picture[None] for picture in pictures()]  # as a list of single ones
    linked = {"vae": vae, "images": images, "model": model, "clip": clip}
    _, _, alignment, numbers = look(router, **linked, captions="a ring", pictures=4)
    assert alignment.shape == (1, 480, 900, 3)
    told = json.loads(numbers)["alignment"]
    assert told["pictures"] == 4
    assert told["block"] == read_blocks(diffusion_model(model))[1].name
    assert set(told["cosine"]) == {level.module for level in router.levels}
    assert all(len(values) == LEVELS for values in told["cosine"].values())


def test_a_plain_training_is_measured_too(
    model: ModelPatcher,  # noqa: F811
    clip: CLIP,  # noqa: F811
    vae: VAE,
) -> None:
    plot, _, alignment, numbers = look(None, vae=vae, images=pictures(), model=model, clip=clip)
    assert plot.shape == (1, 640, 900, 3)
    assert alignment.shape == (1, 480, 900, 3)
    told = json.loads(numbers)
    assert set(told) == {"features", "alignment"}
    assert len(told["alignment"]["cosine"]) == 6  # middle and deep


def test_the_model_is_asked_as_a_sampler_asks_and_is_left_as_it_is(
    model: ModelPatcher,  # noqa: F811
    clip: CLIP,  # noqa: F811
) -> None:
    before = sample(model, clip)
    inner = diffusion_model(model)
    block, latent = chosen_block(read_blocks(inner), 2), torch.randn(1, 16, 8, 8)
    caption = encode(clip, "a red circle", None)
    asked = ahpa_inspection._Asked(model, block, 16, latent, 3, (0.2, 0.7), lambda: None)
    found = asked.tokens(caption)
    direct, reader = FrozenCopy(model), HiddenReader(inner, block, 16)
    eps = noise(latent.shape, generator(0, "ahpa-inspection", 3))
    for t, tokens in zip((0.2, 0.7), found, strict=True):
        with reader:
            direct.x0((1 - t) * latent + t * eps, torch.tensor([t]), caption)
        assert torch.allclose(tokens, reader.tokens[0].float(), atol=1e-5)
    assert not torch.allclose(*found, atol=1e-2)
    assert torch.equal(sample(model, clip), before)
    assert not inner.get_submodule(block.module)._forward_hooks


def test_cancel_stops_it(
    router: TrainedRouter,
    model: ModelPatcher,  # noqa: F811
    clip: CLIP,  # noqa: F811
    vae: VAE,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[int] = []
    total = 3 * PICTURES + PICTURES * (2 + LEVELS)

    def cancelled(bar: comfy.utils.ProgressBar, value: int) -> None:
        done.append(value)
        assert bar.total == total
        if len(done) == total - 2:
            comfy.model_management.interrupt_current_processing()

    monkeypatch.setattr(comfy.utils.ProgressBar, "update", cancelled)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        look(router, vae=vae, images=pictures(), model=model, clip=clip)
    assert len(done) == total - 2
    inner = diffusion_model(model)
    assert not inner.get_submodule(read_blocks(inner)[1].module)._forward_hooks


def test_what_can_be_known_is_said_before_the_run() -> None:
    def said(*names: str) -> bool | str:
        return CalibriAHPARouter.validate_inputs(**dict.fromkeys(names))

    assert said() is True
    assert said("vae", "images", "model", "clip", "captions") is True
    assert said("vae", "images", "clip") is True
    assert said("vae") == ("vae is connected and images not: connect it, or disconnect vae.")
    assert "images is connected and vae not" in str(said("images"))
    assert "model is connected and vae and images and clip not: connect them" in str(said("model"))
    assert "captions is connected and images not" in str(said("captions"))


def test_what_shows_in_the_run_is_one_sentence(
    router: TrainedRouter,
    model: ModelPatcher,  # noqa: F811
    clip: CLIP,  # noqa: F811
    vae: VAE,
) -> None:
    linked = {"vae": vae, "model": model, "clip": clip}
    with pytest.raises(ValueError, match="There are 3 pictures"):
        look(router, images=pictures(3), **linked)
    with pytest.raises(ValueError, match="less than the crop"):
        look(router, images=pictures(), size=128, **linked)
    elsewhere = TrainedRouter("ahpa", (Level("roof", 3),), 128, router.router, {})
    with pytest.raises(ValueError, match=r"this VAE has not \(roof\)"):
        look(elsewhere, images=pictures(), **linked)
    wide = TrainedRouter("ahpa", router.levels, 64, router.router, {"recipe": {"width": 10**9}})
    with pytest.raises(ValueError, match="64 wide, and this model's are 128"):
        look(wide, images=pictures(), **linked)
    with torch.inference_mode():
        other = make_vae(latent_channels=4)
    with pytest.raises(ValueError, match="load the VAE that belongs to the model"):
        look(router, images=pictures(), **{**linked, "vae": other})


def test_models_that_do_not_run_the_block_once_are_refused(
    router: TrainedRouter,
    model: ModelPatcher,  # noqa: F811
    clip: CLIP,  # noqa: F811
    vae: VAE,
) -> None:
    def twice(apply: Any, args: Any) -> torch.Tensor:
        conds = {k: torch.cat([v, v]) if torch.is_tensor(v) else v for k, v in args["c"].items()}
        x, t = args["input"], args["timestep"]
        found: torch.Tensor = apply(torch.cat([x, x]), torch.cat([t, t]), **conds)[:1]
        return found

    for wrapper, words in (
        (lambda apply, args: args["input"], "without running its block"),
        (twice, "from 2 predictions, as an ensemble does"),
    ):
        changed = model.clone()
        changed.set_model_unet_function_wrapper(wrapper)
        with pytest.raises(ValueError, match=words):
            look(router, vae=vae, images=pictures(), model=changed, clip=clip)


def test_a_router_is_saved_under_a_free_number_and_loaded(
    router: TrainedRouter, routers: Path
) -> None:
    for _ in range(2):
        CalibriSaveAHPARouter.execute(router, "mine/first")
    assert sorted(file.name for file in (routers / "mine").iterdir()) == [
        "first_00001.safetensors",
        "first_00002.safetensors",
    ]
    name = "mine/first_00002.safetensors"
    assert CalibriLoadAHPARouter.validate_inputs(name) is True
    (found,) = CalibriLoadAHPARouter.execute(name).result
    assert (found.method, found.levels, found.hidden) == ("ahpa", router.levels, 128)
    times = torch.rand(4)
    assert torch.equal(found.router(times), router.router(times))
    assert CalibriLoadAHPARouter.fingerprint_inputs(name) > 0


def test_files_that_are_no_routers_are_refused_before_the_run(routers: Path) -> None:
    routers.mkdir()
    (routers / "broken.safetensors").write_bytes(b"no safetensors")
    assert "holds no router of AHPA" in str(
        CalibriLoadAHPARouter.validate_inputs("broken.safetensors")
    )
    assert CalibriLoadAHPARouter.validate_inputs("none.safetensors") == (
        "There is no router 'none.safetensors' in models/ahpa; put one there and press R to "
        "refresh the list."
    )
    assert CalibriLoadAHPARouter.validate_inputs(None) is True
    assert "cannot name a file" in str(CalibriSaveAHPARouter.validate_inputs("../x"))
    with pytest.raises(ValueError, match="learns no router"):
        CalibriSaveAHPARouter.execute(None, "mine")
    assert not list(routers.glob("mine*"))


def test_the_command_draws_features_of_a_vae_by_comfyui(
    router: TrainedRouter, root: Path, comfyui: Path, tmp_path: Path
) -> None:
    file, output = tmp_path / "router.safetensors", tmp_path / "found"
    save_router(file, router)
    for number, picture in enumerate(pictures(2)):
        pixels = (picture * 255).byte().numpy()
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    command = [sys.executable, "-m", "comfyui_calibri", "inspect-router", file]
    command += ["--output", output, "--vae", WEIGHTS / DEMO_VAE, "--size", 64]
    command += ["--pictures", tmp_path / "0.png", "--pictures", tmp_path / "1.png"]
    command += ["--comfyui", comfyui, "--cpu"]
    done = subprocess.run(list(map(str, command)), cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    numbers = json.loads((output / "router.json").read_text("utf-8"))
    assert {group: found["cells"] for group, found in numbers["features"].items()} == {
        "shallow": [32, 32],
        "middle": [16, 16],
        "deep": [8, 8],
    }
    with Image.open(output / "features.png") as drawn:
        assert drawn.size == (410, 600)
