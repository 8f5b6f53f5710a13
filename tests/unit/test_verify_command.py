"""`comfyui-calibri verify VECTOR.json`: what it prints, and its exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner, Result

from comfyui_calibri.cli import app

from ..official_recordings import RECORDINGS, write_vector

pytestmark = pytest.mark.slow

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guided Qwen-Image: its JSON."""
    (recording,) = (recording for recording in RECORDINGS if recording.name == "qwen_guided")
    return write_vector(recording, tmp_path_factory.mktemp("recorded"))


@pytest.fixture
def vector(recorded: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    for file in recorded.parent.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path / recorded.name


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


def rewrite(vector: Path, **changes: Any) -> None:
    """Other values for fields of the JSON; None takes a field away."""
    described = json.loads(vector.read_text()) | changes
    described = {key: value for key, value in described.items() if value is not None}
    vector.write_text(json.dumps(described))


def rewrite_tensors(vector: Path, change: Callable[[Tensors], object]) -> None:
    path = vector.with_suffix(".safetensors")
    tensors = load_file(path)
    change(tensors)
    path.unlink()  # it is still mapped
    save_file(tensors, path)


def test_agreement(vector: Path, tmp_path: Path) -> None:
    """As a user starts it, from any folder."""
    command = [sys.executable, "-m", "comfyui_calibri", "verify", str(vector)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, difference, last = done.stdout.splitlines()
    assert first == "qwen_guided.json: qwen-image, gate, members: 2"
    assert difference.startswith("largest absolute difference: ")
    largest = load_file(vector.with_suffix(".safetensors"))["output"].abs().max().item()
    assert difference.endswith(f"(allowed: {1e-5 * largest:.3g})")
    assert last == "agrees"


def test_the_console_script_is_this_command() -> None:
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="comfyui-calibri")
    assert script.load() is app


def test_difference(vector: Path) -> None:
    def change(tensors: Tensors) -> None:
        tensors["output"][0, 0, 0] += 2e-5 * tensors["output"].abs().max()

    rewrite_tensors(vector, change)
    found = run(vector)
    assert found.exit_code == 1
    assert "DIFFERS" in found.stdout


def without(name: str) -> Callable[[Path], None]:
    return lambda vector: rewrite_tensors(vector, lambda tensors: tensors.pop(name))


def replaced(**tensors: Tensor) -> Callable[[Path], None]:
    named = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    return lambda vector: rewrite_tensors(vector, lambda found: found.update(named))


def field(**changes: Any) -> Callable[[Path], None]:
    return lambda vector: rewrite(vector, **changes)


def within(key: str, **changes: Any) -> Callable[[Path], None]:
    """Other values inside a field that is an object."""
    return lambda vector: rewrite(vector, **{key: json.loads(vector.read_text())[key] | changes})


def nan(vector: Path) -> None:
    coefficients = json.loads(vector.read_text())["coefficients"]
    rewrite(vector, coefficients=[*coefficients[:-1], float("nan")])


def digits(vector: Path) -> None:
    start = '"coefficients": ['
    vector.write_text(vector.read_text().replace(start, f"{start}{'9' * 5000}, ", 1))


FLUX, SD3 = "FluxTransformer2DModel", "SD3Transformer2DModel"
SD3_SHAPES = {
    "total": 22,
    "n_models": 2,
    "main": 12,
    "context": 8,
    "attn2": 0,
    "n_blocks": 3,
    "n_context": 2,
    "n_attn2": 0,
}
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no such file": (lambda vector: vector.unlink(), "cannot be read (No such file"),
    "a folder": (lambda vector: (vector.unlink(), vector.mkdir()), "cannot be read (Is a dir"),
    "no JSON": (lambda vector: vector.write_text("{"), "is not JSON"),
    "not text": (lambda vector: vector.write_bytes(b"\xff\xfe\x00"), "is not JSON"),
    "another JSON": (lambda vector: vector.write_text("[1]"), "holds no JSON object"),
    "a checkpoint": (lambda vector: vector.write_text('{"solution": []}'), "has no 'file'"),
    "no tensors": (lambda vector: vector.with_suffix(".safetensors").unlink(), "cannot be read"),
    "broken tensors": (
        lambda vector: vector.with_suffix(".safetensors").write_bytes(b"no"),
        "cannot be read",
    ),
    "tensors elsewhere": (field(file="../qwen_guided.safetensors"), "outside its folder"),
    "tensors above": (field(file=".."), "outside its folder"),
    "tensors that are the folder": (field(file="."), "outside its folder"),
    "tensors anywhere": (field(file="/etc/passwd"), "outside its folder"),
    "tensors in a Windows folder": (field(file="..\\qwen.safetensors"), "outside its folder"),
    "unknown class": (field(diffusers_class="UNet2DModel"), "one of FluxTransformer2DModel"),
    "no class": (field(diffusers_class=None), "has no 'diffusers_class'"),
    "wrong class": (field(diffusers_class=SD3), f"config does not make a {SD3}"),
    "a class of like arguments": (field(diffusers_class=FLUX), "lacks the weight"),
    "wrong config": (within("config", num_layers="three"), "config does not make"),
    "another size": (within("config", num_layers=4), "its weights are those of 3 transformer_bl"),
    "a million blocks": (within("config", num_layers=10**6), "has the number 1000000, larger than"),
    "a wide rotation": (within("config", axes_dims_rope=[4, 6, 10**9]), "the number 1000000000"),
    "another shape": (within("config", joint_attention_dim=23), "has another shape than"),
    "unknown weight": (replaced(weights__more=torch.ones(1)), "has the unknown weight 'more'"),
    "no weight": (without("weights.proj_out.bias"), "lacks the weight 'proj_out.bias'"),
    "unknown mode": (field(mode="both"), "one of ensemble, cfg"),
    "no shapes": (field(shapes=None), "has no 'shapes'"),
    "other shapes": (field(shapes={"total": 3}), "does not fit together"),
    "wrong shapes": (within("shapes", total=27), "contradict themselves"),
    "shapes of another model": (
        field(shapes=SD3_SHAPES, coefficients=[1.0] * 22),
        "are those of sd3 with 3 joint blocks",
    ),
    "too few coefficients": (field(coefficients=[1.0]), "does not fit together"),
    "coefficients that are words": (field(coefficients=["1"]), "a list of finite numbers"),
    "a number of 5,000 digits": (digits, "a list of finite numbers"),
    "not a number": (nan, "a list of finite numbers"),
    "no output": (without("output"), "lacks the tensor 'output'"),
    "output of another shape": (replaced(output=torch.ones(2, 4)), "has shape (2, 4)"),
    "no input": (without("in.hidden_states"), "lacks the tensor 'in.hidden_states'"),
    "no negative prompt": (without("uncond.hidden_states"), "'uncond.hidden_states'"),
    "half a call": (without("in.timestep"), "cannot be called with the vector's inputs"),
    "an unknown input": (replaced(in__music=torch.ones(2)), "the input 'music'"),
    "the caller's own argument": (replaced(in__return_dict=torch.ones(1)), "input 'return_dict'"),
    "an argument that is no tensor": (
        replaced(uncond__attention_kwargs=torch.ones(1)),
        "input 'attention_kwargs'",
    ),
    "image shapes that are none": (field(img_shapes=[1]), "img_shapes = [1]"),
}


@pytest.mark.parametrize("problem", BAD)
def test_bad_input(vector: Path, problem: str) -> None:
    spoil, words = BAD[problem]
    spoil(vector)
    found = run(vector)
    assert found.exit_code == 2, found.stdout
    assert words in found.stderr
    assert len(found.stderr.splitlines()) == 1
    assert found.stdout == ""


def test_guidance_needs_two_members(tmp_path: Path) -> None:
    (recording,) = (recording for recording in RECORDINGS if recording.name == "flux_gate")
    vector = write_vector(recording, tmp_path)

    def change(tensors: Tensors) -> None:
        tensors |= {
            name.replace("in.", "uncond.", 1): tensor.clone()
            for name, tensor in tensors.items()
            if name.startswith("in.")
        }

    rewrite_tensors(vector, change)
    rewrite(vector, mode="cfg")
    found = run(vector)
    assert found.exit_code == 2
    assert "one member" in found.stderr


def test_without_diffusers(vector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    found = run(vector)
    assert found.exit_code == 2
    assert "pip install 'comfyui-calibri[diffusers]'" in found.stderr
