"""`comfyui-calibri evaluate` on the demo model, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from comfyui_calibri.calibri.evaluation import ImageTooLargeError
from comfyui_calibri.calibri.presets import load_preset, save_preset
from comfyui_calibri.cli import app
from comfyui_calibri.demo.painter import SCORES, DemoPainter
from comfyui_calibri.demo.weights import WEIGHTS

PRESET = str(WEIGHTS / "calibri" / "calibri-demo.safetensors")
SMALL = ["--demo", "--max-prompts", "2", "--images-per-prompt", "1"]


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_the_demo_is_evaluated_kept_and_gone_on_with(tmp_path: Path) -> None:
    output = tmp_path / "report"
    done = evaluate(PRESET, *SMALL, "--steps", 1, "--output", output, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report == json.loads((output / "evaluation.json").read_text())
    assert report["rewards"] == list(SCORES)
    assert [cell["nfe"] for cell in report["cells"]] == [1, 1]
    assert (output / "evaluation.html").exists()

    # Other steps are another evaluation; what was drawn is not drawn again.
    refused = evaluate(PRESET, *SMALL, "--steps", "1,2", "--output", output)
    assert refused.exit_code == 2
    assert "holds the report of another evaluation" in refused.stderr
    kept = {file.name: file.stat().st_mtime_ns for file in (output / "drawn").iterdir()}
    again = evaluate(PRESET, *SMALL, "--steps", "1,2", "--output", output, "--overwrite")
    assert again.exit_code == 0, again.output
    assert f"The report is {output / 'evaluation.html'}." in again.stdout
    after = {file.name: file.stat().st_mtime_ns for file in (output / "drawn").iterdir()}
    assert kept.items() < after.items()


def test_the_demos_own_size_is_the_default_and_its_folders_files_are_kept(tmp_path: Path) -> None:
    bare = tmp_path / "bare.safetensors"  # as Edit Calibri and imports make them
    save_preset(bare, replace(load_preset(Path(PRESET)), sampling={}))
    output = tmp_path / "own"
    output.mkdir()
    (output / "grid.png").write_bytes(b"mine")
    refused = evaluate(bare, *SMALL, "--steps", 1, "--output", output)
    assert refused.exit_code == 2
    assert f"{output} holds another grid.png" in refused.stderr
    assert [file.name for file in output.iterdir()] == ["grid.png"]
    done = evaluate(bare, *SMALL, "--steps", 1, "--output", output, "--overwrite")
    assert done.exit_code == 0, done.output


def test_one_image_that_does_not_fit_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(*_: object) -> None:
        raise ImageTooLargeError("One image does not fit in memory.")

    monkeypatch.setattr(DemoPainter, "draw", draw)
    done = evaluate(PRESET, *SMALL, "--steps", 1, "--output", tmp_path / "report")
    assert (done.exit_code, done.stderr) == (1, "One image does not fit in memory.\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([PRESET], "There is no model: give --checkpoint, --diffusion-model or --demo."),
        ([PRESET] * 4 + ["--demo"], "There are 4 presets: give at most 3."),
        ([PRESET, "--demo", "--steps", "0"], "steps has '0'"),
        ([PRESET, "--demo", "--sizes", "128x128"], "The size 128x128 is not the demo model's"),
        ([PRESET, "--demo", "--sampler", "heun"], "'heun' with the scheduler 'simple'"),
        ([PRESET, "--demo", "--sampler", ","], "the demo model has 'euler'"),
        ([PRESET, "--demo", "--reward", "PickScore"], "leave out --reward"),
        ([PRESET, "--demo", "--vae", "a.safetensors"], "leave out --vae"),
        ([PRESET, "--demo", "--prompts", "absent.txt"], "absent.txt cannot be read"),
        (["absent.safetensors", "--demo"], "The preset absent.safetensors cannot be opened"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = evaluate(*arguments)
    assert done.exit_code == 2
    assert words in done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


def test_a_model_needs_prompts_a_reward_and_a_comfyui(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prompts.txt").write_text("a circle\na star\n")
    model = ["--checkpoint", "model.safetensors"]
    for more, words in (
        ([], "There are no prompts: give --prompts"),
        (["--prompts", "prompts.txt"], "There are 0 rewards: give --reward"),
        (
            ["--prompts", "prompts.txt", "--reward", "demo", "--comfyui", str(tmp_path)],
            f"There is no ComfyUI in {tmp_path}",
        ),
    ):
        done = evaluate(PRESET, *model, *more)
        assert done.exit_code == 2
        assert words in done.stderr
