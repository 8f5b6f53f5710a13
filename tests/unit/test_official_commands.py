"""`comfyui-calibri import` and `export`: files in, files out, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from comfyui_calibri.calibri.official import OfficialLayout
from comfyui_calibri.calibri.presets import Guidance, Member, Preset, load_preset, save_preset
from comfyui_calibri.cli import app

SD3 = OfficialLayout("sd3", "gate", 2, {"joint": 2}, (0,))


def run(*arguments: object) -> tuple[int, str]:
    """The exit code, and everything that was printed in one line."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    held = {"shapes": SD3.shapes, "solution": [0.5] * (SD3.total - 2) + [7.0, -6.0], "step": 60}
    path = tmp_path / "cmaes_step_0060.json"
    path.write_text(json.dumps(held))
    return path


def test_import_then_export(tmp_path: Path, checkpoint: Path) -> None:
    words = ["--base-model", "SD3.5", "--license", "MIT", "--title", "Mine"]
    code, said = run("import", checkpoint, tmp_path / "a.safetensors", *words)
    assert code == 0
    assert "sd3 with 2 joint, by gate: 14 coefficients. Step 60." in said
    assert "with the weights 7, -6, in place of CFG at 7. Saved as" in said
    preset = load_preset(tmp_path / "a.safetensors")
    assert (preset.title, preset.base_model, preset.licence) == ("Mine", "SD3.5", "MIT")
    assert preset.members[0].coefficients["joint.0.attention2.image"] == 0.5
    assert preset.guidance == Guidance(7.0)
    code, said = run("export", tmp_path / "a.safetensors", tmp_path / "b.json")
    assert code == 0
    again, before = (json.loads(f.read_text()) for f in (tmp_path / "b.json", checkpoint))
    assert (again["shapes"], again["solution"]) == (before["shapes"], before["solution"])


def test_members_and_cfg(tmp_path: Path, checkpoint: Path) -> None:
    out = tmp_path / "a.safetensors"
    assert run("import", checkpoint, out, "--members", "ensemble")[0] == 0
    assert load_preset(out).guidance is None
    assert run("import", checkpoint, out, "--members", "cfg", "--cfg", 4.5, "--overwrite")[0] == 0
    assert load_preset(out).guidance == Guidance(4.5)
    assert run("import", checkpoint, out, "--members", "both", "--overwrite")[0] == 2


def test_nothing_is_overwritten_unasked(tmp_path: Path, checkpoint: Path) -> None:
    out = tmp_path / "a.safetensors"
    assert run("import", checkpoint, out, "--title", "first")[0] == 0
    code, said = run("import", checkpoint, out, "--title", "second")
    assert code == 2
    assert "exists already: choose another name or allow overwriting" in said
    assert load_preset(out).title == "first"
    before = checkpoint.read_text()
    code, said = run("export", out, checkpoint)
    assert (code, checkpoint.read_text()) == (2, before)
    assert run("export", out, checkpoint, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["import", "absent.json", "a.safetensors"], "cannot be opened"),
        (["import", "cmaes_step_0060.json", "a.json"], "must end with .safetensors"),
        (["import", "cmaes_step_0060.json", "no/a.safetensors"], "nothing was written"),
        (["export", "absent.safetensors", "a.json"], "cannot be opened"),
        (["export", "cmaes_step_0060.json", "a.json"], "no .safetensors file"),
        (["export", "qwen.safetensors", "a.txt"], "must end with .json"),
        (["export", "qwen.safetensors", "no/a.json"], "ignores the preset's coefficient"),
        (["export", "qwen.safetensors", "no/a.json", "--drop-ignored"], "nothing was written"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(
    tmp_path: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[Any],
    problem: str,
) -> None:
    member = Member({"block.0": 0.5})
    save_preset(
        tmp_path / "qwen.safetensors", Preset("qwen-image", {"block": 1}, "block", (member,))
    )
    monkeypatch.chdir(tmp_path)
    code, said = run(*arguments)
    assert code == 2
    assert problem in said
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["cmaes_step_0060.json", "qwen.safetensors"]
