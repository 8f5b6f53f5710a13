"""Save as Weight Patch: what the stock LoraLoader makes of the file is what Apply Calibri makes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import comfy.sample
import folder_paths
import nodes as comfy_nodes
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from comfyui_calibri.calibri.coefficients import coefficient_space
from comfyui_calibri.calibri.preset_metadata import Member, Preset
from comfyui_calibri.calibri.presets import save_preset
from comfyui_calibri.commands.export_preset import export_preset
from comfyui_calibri.nodes import folders
from comfyui_calibri.nodes.apply import CalibriApply
from comfyui_calibri.nodes.bake import CalibriSaveWeightPatch
from comfyui_calibri.nodes.identity import fingerprint_of, identity
from comfyui_calibri.nodes.patching import backbone_of

from .tiny_patchers import make_clip, make_model, make_vae, sample

pytestmark = pytest.mark.oldest

# A ComfyUI that has never heard of the pack. Its jobs: pairs of a model's file and a LoRA's name.
STOCK = """
import json, sys
comfyui, base, jobs, inputs, answer = sys.argv[1:]
sys.path.insert(0, comfyui)
from comfy.cli_args import args
args.cpu, args.base_directory = True, base
import comfy.sample, comfy.sd, torch, nodes
from safetensors.torch import load_file, save_file
given, drawn = load_file(inputs), {}
cond = [[given["context"], {"pooled_output": given["pooled"]}]]
with torch.inference_mode():
    for file, lora in json.loads(jobs):
        model = comfy.sd.load_diffusion_model(file)
        if lora:
            model = nodes.LoraLoaderModelOnly().load_lora_model_only(model, lora, 1.0)[0]
        drawn[lora or "saved"] = comfy.sample.sample(model, given["noise"], 3, 1.0, "euler",
            "simple", cond, cond, torch.zeros_like(given["noise"]), disable_pbar=True, seed=0)
save_file(drawn, answer)
assert "comfyui_calibri" not in sys.modules
"""


@pytest.fixture(autouse=True)
def inference() -> Any:
    with torch.inference_mode():
        yield


@pytest.fixture(autouse=True)
def registered() -> None:
    folders.register()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> CLIP:
    return make_clip(Path(tmp_path_factory.mktemp("clip")))


def preset_for(model: ModelPatcher, *weights: float) -> Preset:
    backbone = backbone_of(model)
    space = coefficient_space(backbone, "gate")
    values = torch.empty(len(space.names)).uniform_(-1, 2, generator=torch.manual_seed(3))
    named = dict(zip(space.names, values.tolist(), strict=True))
    return Preset(
        family=backbone.family,
        blocks=dict(backbone.blocks),
        granularity="gate",
        members=tuple(Member(named, weight) for weight in weights or (1.0,)),
        title="wild",
        base_model="tiny",
        licence="CC0",
    )


def bake(model: ModelPatcher, preset: Preset, prefix: str = "baked") -> tuple[Path, ModelPatcher]:
    result = CalibriSaveWeightPatch.execute(model, preset, prefix)
    files = sorted(Path(folder_paths.get_folder_paths("loras")[0]).glob(f"{prefix}_*"))
    return files[-1], result.args[0]


def applied(model: ModelPatcher, preset: Preset, strength: float = 1.0) -> ModelPatcher:
    (made,) = CalibriApply.execute(model, preset, strength, 0.0, 1.0).args
    return made


def difference(drawn: Tensor, expected: Tensor) -> float:
    return float((drawn - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("family", ["flux", "sd3"])
def test_load_lora_draws_what_apply_draws(family: str, clip: CLIP) -> None:
    model = make_model(family)
    preset = preset_for(model)
    plain = sample(model, clip)
    path, patched = bake(model, preset)
    calibrated = sample(applied(model, preset), clip)
    assert difference(plain, calibrated) > 0.01
    assert torch.equal(sample(model, clip), plain), "the model itself was changed"
    name = path.relative_to(folder_paths.get_folder_paths("loras")[0]).as_posix()
    loader = comfy_nodes.LoraLoaderModelOnly()
    for strength in (1.0, 0.5):
        loaded = loader.load_lora_model_only(model, name, strength)[0]
        expected = sample(applied(model, preset, strength), clip)
        assert difference(sample(loaded, clip), expected) <= 1e-4
    before = identity(model), fingerprint_of(model)
    assert difference(sample(patched, clip), calibrated) <= 1e-4
    # The patch is still in the weights that the model shares with it; nobody takes them for its.
    assert (identity(model), fingerprint_of(model)) == before
    assert bake(model, preset)[0].read_bytes() == path.read_bytes()


def test_a_model_that_was_changed_before_is_refused() -> None:
    model = make_model()
    preset = preset_for(model)
    key = "diffusion_model.single_blocks.1.modulation.lin.weight"
    for name in (key, "diffusion_model.img_in.weight"):
        weight = model.get_model_object(name)
        other = model.clone()
        other.add_patches({name: ("diff", (torch.ones_like(weight),))})
        if name != key:  # which no preset scales
            bake(other, preset, "beside")
            continue
        with pytest.raises(ValueError, match=f"model has a LoRA or other patch on {key}"):
            bake(other, preset, "patched")
    with pytest.raises(ValueError, match="model has a preset by Apply Calibri already"):
        bake(applied(model, preset), preset, "applied")
    loras = Path(folder_paths.get_folder_paths("loras")[0])
    assert not [*loras.glob("patched_*"), *loras.glob("applied_*")]


def test_a_comfyui_without_the_pack_draws_the_same(tmp_path: Path) -> None:
    """With the node's file, the command's, and a checkpoint that Save Checkpoint wrote."""
    model = make_model("sd3")
    preset = preset_for(model)
    base = tmp_path / "model.safetensors"
    weights = {
        f"model.diffusion_model.{name}": tensor
        for name, tensor in model.model.diffusion_model.state_dict().items()
    }
    save_file(weights, base)
    path, patched = bake(model, preset, "for-others/baked")
    assert path.parent.name == "for-others"
    saved = save_stock_checkpoint(patched, tmp_path)
    loras = tmp_path / "models" / "loras"
    loras.mkdir(parents=True)
    (loras / "node.safetensors").write_bytes(path.read_bytes())
    save_preset(tmp_path / "preset.safetensors", preset)
    export_preset(
        tmp_path / "preset.safetensors", loras / "command.safetensors", base, False, False
    )

    generator = torch.Generator().manual_seed(1)
    given = {
        "context": torch.randn(1, 5, 64, generator=generator),
        "pooled": torch.randn(1, 64, generator=generator),
        "noise": torch.randn(1, 16, 8, 8, generator=generator),
    }
    cond = [[given["context"], {"pooled_output": given["pooled"]}]]
    expected = comfy.sample.sample(
        applied(model, preset),
        given["noise"],
        3,
        1.0,
        "euler",
        "simple",
        cond,
        cond,
        torch.zeros_like(given["noise"]),
        disable_pbar=True,
        seed=0,
    )
    save_file(given, tmp_path / "inputs.safetensors")
    comfyui = str(Path(comfy_nodes.__file__).parent)
    jobs = [[str(base), f"{of}.safetensors"] for of in ("node", "command")] + [[str(saved), ""]]
    files = [str(tmp_path / f"{name}.safetensors") for name in ("inputs", "answer")]
    environment = {name: v for name, v in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(
        [sys.executable, "-c", STOCK, comfyui, str(tmp_path), json.dumps(jobs), *files],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    drawn = load_file(files[1])
    assert drawn.keys() == {"node.safetensors", "command.safetensors", "saved"}
    for name, picture in drawn.items():
        assert difference(picture, expected) <= 1e-4, name


def save_stock_checkpoint(model: ModelPatcher, folder: Path) -> Path:
    """The file that the stock Save Checkpoint makes of a MODEL."""
    from comfy_extras.nodes_model_merging import CheckpointSave

    node = CheckpointSave()
    node.output_dir = str(folder)
    with torch.inference_mode():
        node.save(model, make_clip(folder), make_vae(), "merged")
    (saved,) = folder.glob("merged*.safetensors")
    return saved


def test_the_file_says_what_it_fits(clip: CLIP) -> None:
    model = make_model("flux")
    path, _ = bake(model, preset_for(model))
    with safe_open(path, "pt") as file:
        told = json.loads(file.metadata()["calibri_weight_patch"])
    assert told["family"] == "flux"
    assert told["base_model"] == "tiny"
    assert "this base model only" in told["fits"]
    second, _ = bake(model, preset_for(model))
    assert second != path


def test_what_cannot_be_baked_is_refused() -> None:
    model = make_model("flux")
    with pytest.raises(ValueError, match=r"2 members.*Apply Calibri"):
        bake(model, preset_for(model, 0.7, 0.3))
    with pytest.raises(ValueError, match=r"is for .* but the model is"):
        bake(make_model("sd3"), preset_for(model))
    assert "'..'" in str(CalibriSaveWeightPatch.validate_inputs("../elsewhere"))
    assert CalibriSaveWeightPatch.validate_inputs(None) is True
