"""`comfyui-calibri export` to a weight patch: without ComfyUI, from the base model's file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from comfyui_calibri.calibri.backbones import read_backbone
from comfyui_calibri.calibri.coefficients import coefficient_space
from comfyui_calibri.calibri.presets import Member, Preset, save_preset
from comfyui_calibri.cli import app
from comfyui_calibri.demo.model import Flux, FluxConfig

PREFIX = "diffusion_model."


def run(*arguments: object) -> tuple[int, str]:
    """The exit code, and everything that was printed in one line."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture(scope="module")
def model() -> Flux:
    torch.manual_seed(0)
    return Flux(FluxConfig(double_blocks=1, single_blocks=2))


@pytest.fixture(scope="module")
def folder(model: Flux, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's file in two ways and presets for it."""
    made: Path = tmp_path_factory.mktemp("export")
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, made / "model.safetensors")
    save_file(
        {f"model.diffusion_model.{name}": tensor for name, tensor in weights.items()}
        | {"vae.decoder.weight": torch.zeros(1)},
        made / "checkpoint.safetensors",
    )
    fp8 = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in weights.items()}
    save_file(fp8, made / "fp8.safetensors")
    space = coefficient_space(read_backbone(model), "gate")
    random = np.random.default_rng(0).uniform(-1, 2, len(space.names)).astype(np.float32)
    named = space.named(random.astype(float))
    members = {
        "preset": (Member(named),),
        "ones": (Member(space.named(space.identity)),),
        "ensemble": (Member(named, 0.5), Member(named, 0.5)),
    }
    blocks = {"double": 1, "single": 2}
    for name, of in members.items():
        save_preset(made / f"{name}.safetensors", Preset("flux", blocks, "gate", of, title="wild"))
    return made


@pytest.mark.parametrize("base", ["model", "checkpoint"])
def test_the_patch_multiplies_the_rows_of_every_tap(
    model: Flux, folder: Path, tmp_path: Path, base: str
) -> None:
    out = tmp_path / "patch.safetensors"
    made = run(
        "export", folder / "preset.safetensors", out, "--base", folder / f"{base}.safetensors"
    )
    assert made == (0, f"Saved as {out}".replace("\n", " "))
    patch, weights = load_file(out), model.state_dict()
    named = dict(
        zip(
            (tap.name for tap in read_backbone(model).taps),
            load_file(folder / "preset.safetensors")["coefficients"][0].tolist(),
            strict=True,
        )
    )
    for tap in read_backbone(model).taps:
        weight, bias = (weights[f"{tap.module}.{of}"] for of in ("weight", "bias"))
        scale = patch[f"{PREFIX}{tap.module}.dora_scale"]
        rows = slice(
            tap.chunk * len(weight) // tap.chunks, (tap.chunk + 1) * len(weight) // tap.chunks
        )
        factor = scale / weight.norm(dim=1, keepdim=True)
        torch.testing.assert_close(
            factor[rows], torch.full_like(factor[rows], named[tap.name]), rtol=1e-4, atol=1e-5
        )
        changed = bias + patch[f"{PREFIX}{tap.module}.diff_b"]
        torch.testing.assert_close(changed[rows], bias[rows] * named[tap.name])
    with safe_open(out, "pt") as file:
        assert json.loads(file.metadata()["calibri_weight_patch"])["title"] == "wild"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["preset.safetensors", "out.safetensors"], "with --base MODEL.safetensors"),
        (["preset.safetensors", "out.ckpt"], "must end with .json"),
        (["preset.safetensors", "out.safetensors", "--base", "absent"], "cannot be opened"),
        (
            ["preset.safetensors", "out.safetensors", "--base", "preset.safetensors"],
            "holds no flux in ComfyUI's own layout",
        ),
        (
            ["preset.safetensors", "out.safetensors", "--base", "fp8.safetensors"],
            "is quantised (double_blocks.0.img_mod.lin holds F8_E4M3)",
        ),
        (
            ["ensemble.safetensors", "out.safetensors", "--base", "model.safetensors"],
            "has 2 members, whose predictions are summed",
        ),
        (["ones.safetensors", "out.safetensors", "--base", "model.safetensors"], "are all 1"),
        (["preset.safetensors", "ones.safetensors", "--base", "model.safetensors"], "exists"),
        (
            [
                "preset.safetensors",
                "model.safetensors",
                "--base",
                "./model.safetensors",
                "--overwrite",
            ],
            "is the file of --base itself",
        ),
        (
            ["preset.safetensors", "preset.safetensors", "--base", "a", "--overwrite"],
            "is the file of PRESET itself",
        ),
        (
            ["preset.safetensors", "a.safetensors", "--base", "a", "--drop-ignored"],
            "--drop-ignored is for .json",
        ),
        (["preset.safetensors", "a.json", "--base", "model.safetensors"], "--base is for weight"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], problem: str
) -> None:
    monkeypatch.chdir(folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    code, said = run("export", *arguments)
    assert code == 2
    assert problem in said
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
