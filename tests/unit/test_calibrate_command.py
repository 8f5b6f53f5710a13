"""`comfyui-calibri calibrate`: what goes before what, and what is refused before ComfyUI starts."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from comfyui_calibri.calibri.settings import SETTINGS, ModelNames, RunSettings
from comfyui_calibri.calibri.settings_file import write_settings
from comfyui_calibri.cli import app
from comfyui_calibri.commands.exit_codes import sentences, terminable
from comfyui_calibri.commands.run_options import merged

FILE = RunSettings(
    name="night",
    model=ModelNames(diffusion_model="flux", text_encoders=("t5",), vae="ae"),
    prompts=("a", "b"),
    held_out=("c", "d"),
    reward="PickScore",
    other_rewards=("ImageReward",),
    values={**RunSettings().values, "steps": 4},
)
NOTHING = ModelNames()


def test_without_options_the_file_stands() -> None:
    given = dict.fromkeys(SETTINGS)
    assert merged(FILE, None, NOTHING, None, None, None, None, given) == FILE


def test_options_go_before_the_file(tmp_path: Path) -> None:
    prompts = tmp_path / "p.txt"
    prompts.write_text("x\ny\n")
    found = merged(
        FILE,
        "other",
        ModelNames(vae="mine"),
        prompts,
        None,
        ["demo"],
        Path("begin.safetensors"),
        {"cfg": 2.0, "steps": None},
    )
    assert (found.name, found.start_from) == ("other", "begin.safetensors")
    assert found.model == replace(FILE.model, vae="mine")
    # Prompts held out of others are not held out of these.
    assert (found.prompts, found.held_out) == (("x", "y"), ())
    assert (found.reward, found.other_rewards) == ("demo", ())
    assert found.values == {**FILE.values, "cfg": 2.0}


def test_another_model_is_another_altogether() -> None:
    checkpoint = ModelNames(checkpoint="sd3.safetensors")
    assert merged(FILE, None, checkpoint, None, None, None, None, {}).model == checkpoint


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--engine", "fast"], "There is no engine 'fast': choose local or ray."),
        (["--workers", "2"], "--workers is for --engine ray: add that, or leave it out."),
        (["--mixed-workers"], "--mixed-workers is for --engine ray"),
        (["--profile", "best"], "profile is 'best': give one of default, paper."),
        (["--config", "absent.toml"], "The settings absent.toml cannot be read"),
        (["--config", "file.toml", "--prompts", "absent.txt"], "absent.txt cannot be read"),
        (["--config", "file.toml", "--comfyui", "."], "There is no ComfyUI in ."),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_settings(Path("file.toml"), FILE)
    done = CliRunner().invoke(app, ["calibrate", *arguments])
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["file.toml"]


def test_sigterm_ends_with_its_own_code_also_where_ray_makes_another_interrupt_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def waits() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None  # as ray.wait does

    for work, code in ((waits, 143), (_interrupted, 130)):
        with pytest.raises(typer.Exit) as ended, terminable(), sentences(1):
            work()
        assert ended.value.exit_code == code
    assert capsys.readouterr().err.split("\n")[:2] == [
        "Terminated. The same command goes on.",
        "Stopped. The same command goes on.",
    ]


def _interrupted() -> None:
    raise KeyboardInterrupt


def test_there_is_an_option_for_every_setting() -> None:
    shown = CliRunner().invoke(app, ["calibrate", "--help"], env={"COLUMNS": "200"}).stdout
    assert not [name for name in SETTINGS if f"--{name.replace('_', '-')}" not in shown]
