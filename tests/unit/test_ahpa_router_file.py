"""A router as a file: what is read is what was saved, and nothing else is taken for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from comfyui_calibri.ahpa.methods import METHODS, router_of
from comfyui_calibri.ahpa.router_file import (
    METADATA_KEY,
    RouterFileError,
    TrainedRouter,
    can_be_kept,
    load_router,
    save_router,
)
from comfyui_calibri.cli import app

from .ahpa_subject import LEVELS

KEPT = [method for method in METHODS if can_be_kept(method)]


def test_the_routers_that_learn_are_kept() -> None:
    assert KEPT == ["ahpa", "static", "sinusoidal", "content", "lookup", "depth 3", "depth 8"]


@pytest.mark.parametrize("method", KEPT)
def test_what_is_read_is_what_was_saved(method: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    router = router_of(method, LEVELS, 8)
    for parameter in router.parameters():
        torch.nn.init.normal_(parameter)
    path = tmp_path / "router.safetensors"
    save_router(path, TrainedRouter(method, LEVELS, 8, router, {"steps": 3}))
    found = load_router(path)
    assert (found.method, found.levels, found.hidden) == (method, LEVELS, 8)
    assert found.training == {"steps": 3}
    times, hidden = torch.rand(4), torch.randn(4, 2, 8)
    assert torch.equal(found.router(times, hidden), router(times, hidden))
    with pytest.raises(FileExistsError, match="another name"):
        save_router(path, found)


@pytest.mark.parametrize(
    "told",
    [None, "{}", "[]", '{"schema": 1, "method": "none", "levels": [], "hidden": 1}', "no JSON"],
)
def test_other_files_are_refused_in_a_sentence(told: str | None, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.ones(1)}, path, None if told is None else {METADATA_KEY: told})
    with pytest.raises(RouterFileError, match="holds no router of AHPA"):
        load_router(path)
    with pytest.raises(RouterFileError, match="holds no router of AHPA"):
        load_router(tmp_path / "absent.safetensors")


def test_a_newer_version_is_named(tmp_path: Path) -> None:
    path = tmp_path / "new.safetensors"
    save_file({"a": torch.ones(1)}, path, {METADATA_KEY: '{"schema": 2}'})
    with pytest.raises(RouterFileError, match="another version"):
        load_router(path)


def test_a_file_is_inspected_on_the_command_line(tmp_path: Path) -> None:
    path, output = tmp_path / "router.safetensors", tmp_path / "found"
    save_router(path, TrainedRouter("ahpa", LEVELS, 8, router_of("ahpa", LEVELS, 8), {}))

    def inspect(*options: object) -> Result:
        return CliRunner().invoke(app, ["inspect-router", *map(str, options)])

    done = inspect(path, "--output", output)
    assert done.exit_code == 0, done.output
    assert "At full noise (t = 1): middle 50%, deep 50%" in done.stdout
    assert sorted(file.name for file in output.iterdir()) == ["router.json", "router.png"]
    numbers = json.loads((output / "router.json").read_text("utf-8"))
    assert numbers["beta"]["deep"] == [0.5] * len(numbers["t"])
    with Image.open(output / "router.png") as picture:
        assert picture.size == (900, 640)

    refused = {
        "holds router.json and router.png already": inspect(path, "--output", output),
        "give both --vae and --pictures": inspect(path, "--vae", path),
        "holds no router of AHPA": inspect(output / "router.png"),
    }
    for words, said in refused.items():
        assert said.exit_code == 2
        assert words in said.stderr
    assert inspect(path, "--output", output, "--overwrite").exit_code == 0
