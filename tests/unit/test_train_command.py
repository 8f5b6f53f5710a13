"""`comfyui-calibri train`: from nothing and from a file, what is kept, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from comfyui_calibri.ahpa import feature_cache
from comfyui_calibri.ahpa.picture_folder import read_folder
from comfyui_calibri.ahpa.router_file import load_router
from comfyui_calibri.ahpa.sit import SiT, SiTConfig
from comfyui_calibri.ahpa.sit_file import load_reference
from comfyui_calibri.commands.train_watch import Watch
from comfyui_calibri.demo.model import Flux, FluxConfig
from comfyui_calibri.demo.weights import load_into
from comfyui_calibri.training.lock import alone_in

from .train_worlds import DEMO, QUICK, SIDE, SIT, classes, pictures, train, vae


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in two classes, and a VAE."""
    folder = tmp_path_factory.mktemp("world")
    classes(folder / "data")
    vae(folder / "vae")
    return folder


def told(path: Path) -> dict[str, object]:
    with safe_open(path, "pt") as file:
        return dict(json.loads(file.metadata()["calibri_training"]))


def test_a_model_of_the_demos_shape_from_nothing_then_fine_tuned(tmp_path: Path) -> None:
    first = tmp_path / "first"
    done = train(*DEMO, "--output", first, "--preview-every", 2, "--checkpoint-every", 2, "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["state"], said["steps"], said["began"]) == ("finished", 3, 0)
    assert set(said["losses"]) == {"flow", "alignment", "entropy"}
    assert all(Path(file).is_file() for file in said["files"].values())
    assert (first / "model-step-000002.safetensors").is_file()
    drawn = [path.name for path in sorted((first / "previews").iterdir())]
    assert drawn == ["step-000002.png", "step-000003.png"]
    config = FluxConfig(double_blocks=1, single_blocks=2)
    load_into(Flux(config), "model.safetensors", first)  # FLUX's names, all of them
    assert load_router(first / "router.safetensors").method == "ahpa"
    second = tmp_path / "second"
    base = ["--model", first / "model.safetensors", "--cache", first / "cache"]
    options = [*QUICK, "--demo", "--pictures", 6, *base, "--learning-rate", 1e-9]
    done = train(*options, "--output", second, "--method", "none")
    assert done.exit_code == 0, done.output
    before, after = (load_file(folder / "model.safetensors") for folder in (first, second))
    for name, value in before.items():
        assert torch.allclose(value, after[name], atol=1e-6), name
    assert not (second / "router.safetensors").exists()


def test_a_sit_on_classes_has_the_references_names(world: Path, tmp_path: Path) -> None:
    options = [*SIT, "--data", world / "data", "--vae", world / "vae", "--output", tmp_path]
    done = train(*options, "--checkpointing", "--accumulate", 2, "--precision", "bfloat16")
    assert done.exit_code == 0, done.output
    tensors = load_file(tmp_path / "model.safetensors")
    assert {"x_embedder.proj.weight", "y_embedder.embedding_table.weight", "pos_embed"} <= set(
        tensors
    )
    assert tensors["y_embedder.embedding_table.weight"].shape == (3, 32)
    shape = SiTConfig(hidden=32, depth=3, heads=2, side=SIDE // 8, classes=2)
    model = SiT(shape)
    load_reference(model, tensors)
    about = told(tmp_path / "model.safetensors")
    assert about["classes"] == ["cat", "dog"]
    assert about["latents"] == {"scale": 2.0, "shift": 0.0}  # the VAE's own
    assert about["shape"] == shape.__dict__
    again = train(*options)
    assert again.exit_code == 2
    assert "name another --output" in again.output
    tuned = tmp_path / "tuned"
    data = ["--data", world / "data", "--vae", world / "vae", "--output", tuned]
    done = train(*QUICK, *data, "--model", tmp_path / "model.safetensors", "--method", "sra")
    assert done.exit_code == 0, done.output
    other = pictures(tmp_path / "other", [f"bird/{n}.png" for n in range(4)])
    data = ["--data", other, "--vae", world / "vae", "--output", tmp_path / "bird"]
    done = train(*QUICK, *data, "--model", tmp_path / "model.safetensors")
    assert done.exit_code == 2
    assert "a subfolder for each of its classes" in done.output


@pytest.mark.parametrize("method", ["latents", "deepest", "repa", "frozen"])
def test_baselines_train_too(method: str, tmp_path: Path) -> None:
    options: list[object] = [*DEMO, "--method", method, "--output", tmp_path / "run"]
    if method == "frozen":
        assert train(*DEMO, "--output", tmp_path / "base").exit_code == 0
        options += ["--router", tmp_path / "base" / "router.safetensors"]
    done = train(*options)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_pictures_with_captions_by_the_demos_encoder(world: Path, tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", [f"{n}.png" for n in range(5)])
    for path in data.glob("*.png"):
        path.with_suffix(".txt").write_text("a red circle on a quokka")
    options = [*SIT, "--demo", "--shape", "sit-b/2", "--data", data, "--output", tmp_path / "run"]
    done = train(*options, "--method", "uniform")
    assert done.exit_code == 0, done.output
    assert "does not know 1 words: quokka" in done.stderr
    assert "y_embedder.weight" in load_file(tmp_path / "run" / "model.safetensors")


def test_a_killed_run_goes_on_to_the_bits_of_one_that_was_not(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "comfyui_calibri").symlink_to(Path(__file__).parents[2])
    long = ["--steps", "6", "--save-every", "2", "--cache", str(tmp_path / "cache")]
    options = [*DEMO, *long, "--output", str(tmp_path / "killed")]
    script = str(Path(__file__).with_name("killed_train.py"))
    done = subprocess.run(
        [sys.executable, script, str(package), "3", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    resumed = train(*options, "--json")
    assert resumed.exit_code == 0, resumed.output
    assert json.loads(resumed.stdout)["began"] == 2
    whole = train(*DEMO, *long, "--output", tmp_path / "whole")
    assert whole.exit_code == 0, whole.output
    one, other = tmp_path / "killed", tmp_path / "whole"
    for name in ("model.safetensors", "router.safetensors"):
        first, second = load_file(one / name), load_file(other / name)
        assert list(first) == list(second)
        for key, value in first.items():
            assert torch.equal(value, second[key]), (name, key)
    # Of one run, but for the order in which safetensors writes a file's metadata.
    assert told(one / "model.safetensors") == told(other / "model.safetensors")
    assert (one / "losses.png").read_bytes() == (other / "losses.png").read_bytes()


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_it_between_steps_and_the_same_command_goes_on(
    sign: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(_watch: Watch, run: object) -> None:
        os.kill(os.getpid(), sign)

    options = [*DEMO, "--output", tmp_path]
    with monkeypatch.context() as patched:
        patched.setattr(Watch, "__call__", asked)
        stopped = train(*options)
    assert stopped.exit_code == code, stopped.output
    assert "The same command goes on" in stopped.stderr
    assert not (tmp_path / "model.safetensors").exists()
    resumed = train(*options)
    assert resumed.exit_code == 0, resumed.output
    assert "Going on from step 1." in resumed.stderr


def test_a_loss_that_is_no_number_stops_and_leaves_what_was_good(tmp_path: Path) -> None:
    done = train(*DEMO, "--learning-rate", 1e30, "--output", tmp_path)
    assert done.exit_code == 1
    assert "of step 2 is no finite number" in done.stderr
    kept = tmp_path / "model-step-000001.safetensors"
    assert kept.name in done.stderr
    assert told(kept)["steps"] == 1
    assert not (tmp_path / "model.safetensors").exists()


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(feature_cache, "write_atomically", full)
    done = train(*DEMO, "--output", tmp_path)
    assert done.exit_code == 2
    assert "No space left on device): free some space" in done.stderr


def test_a_device_that_is_too_small_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_watch: Watch, _run: object) -> None:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(Watch, "__call__", full)
    done = train(*DEMO, "--output", tmp_path)
    assert done.exit_code == 1
    assert "give a smaller batch" in done.stderr


def test_one_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    with alone_in(tmp_path):
        done = train(*DEMO, "--output", tmp_path)
    assert done.exit_code == 3
    assert "Another process trains in" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "There is no VAE"),
        (["--demo", "--method", "best"], "no method 'best'"),
        (["--demo", "--shape", "dit"], "no shape 'dit'"),
        (["--demo", "--told", "words"], "choose one of captions, classes, either"),
        (["--demo", "--depth", "3"], "--depth is no size of this shape"),
        (["--demo", "--size", "128"], "The demo draws 64 pixels"),
        (["--demo", "--method", "reversed"], "needs a router that was trained before"),
        (["--demo", "--batch", "0"], "batch"),
        (["--demo", "--model", "gone.safetensors"], "gone.safetensors cannot be read"),
    ],
)
def test_what_does_not_fit_is_refused(options: list[str], words: str, tmp_path: Path) -> None:
    done = train("--cpu", "--pictures", 6, *options, "--output", tmp_path)
    assert done.exit_code == 2
    assert words in done.stderr


def test_pictures_and_vae_that_do_not_fit_are_refused(world: Path, tmp_path: Path) -> None:
    def refused(*options: object) -> str:
        done = train(*SIT, "--output", tmp_path / "run", *options)
        assert done.exit_code == 2, done.output
        return " ".join(done.stderr.split())

    own = ["--vae", world / "vae"]
    assert "There is no folder" in refused(*own, "--data", tmp_path / "nowhere")
    assert "less than the crop of 48 x 48" in refused(*own, "--data", world / "data", "--size", 48)
    assert "multiple of 8" in refused(*own, "--data", world / "data", "--size", 36)
    captions = ["--told", "captions", "--data", world / "data"]
    assert "has no caption" in refused(*own, *captions)
    loose = pictures(tmp_path / "loose", ["a.png", "b.png"])
    assert "a.png has no caption" in refused(*own, "--data", loose)
    for path in loose.glob("*.png"):
        path.with_suffix(".txt").write_text("a cat")
    assert "nothing to read the captions with" in refused(*own, "--data", loose)
    assert "in no subfolder" in refused(*own, "--data", loose, "--told", "classes")
    (loose / "a.png").write_bytes(b"no picture")
    assert "a.png cannot be read" in refused(*own, "--data", loose, "--demo")
    file = tmp_path / "some.safetensors"
    file.write_bytes(b"cut")
    assert "holds no AutoencoderKL" in refused("--vae", file, "--data", world / "data")


def test_a_vae_that_does_not_fit_the_model_and_a_cache_of_another_one(
    world: Path, tmp_path: Path
) -> None:
    data = ["--data", world / "data", "--method", "latents"]
    run = tmp_path / "run"
    assert train(*SIT, *data, "--vae", world / "vae", "--output", run).exit_code == 0
    wide, other = vae(tmp_path / "wide", channels=6), vae(tmp_path / "other", seed=1)
    model = ["--model", run / "model.safetensors", "--output", tmp_path / "next"]
    done = train(*QUICK, *data, "--vae", wide, *model)
    assert done.exit_code == 2
    assert "6 channels and the model takes 4" in done.stderr
    done = train(*QUICK, *data, "--vae", other, *model, "--cache", run / "cache")
    assert done.exit_code == 2
    assert "the features of another VAE" in done.stderr
    done = train(*QUICK, *data, "--vae", world / "vae", *model, "--size", 40)
    assert done.exit_code == 2
    assert "takes 4 x 4" in done.stderr


def test_a_folder_is_read_in_order_and_a_changed_picture_has_another_mark(tmp_path: Path) -> None:
    folder = pictures(tmp_path, ["b/2.png", "a/1.PNG", ".hidden.png", "c/note.txt.png"])
    (folder / "empty").mkdir()
    found = read_folder(folder, SIDE)
    assert [path.name for path in found.files] == ["1.PNG", "2.png", "note.txt.png"]
    assert found.classes == ("a", "b", "c", "empty")
    assert found.labels == (0, 1, 2)
    crops = found.crops([2, 0])
    assert crops.shape == (2, 3, SIDE, SIDE)
    assert torch.equal(crops[1], found.crops([0])[0])
    again = read_folder(folder, SIDE)
    assert again.marks == found.marks
    with (folder / "b" / "2.png").open("ab") as file:
        file.write(b" ")
    changed = read_folder(folder, SIDE)
    assert [a == b for a, b in zip(changed.marks, found.marks, strict=True)] == [True, False, True]
    for path in found.files:
        path.with_suffix(".txt").write_text(path.stem)
    captioned = read_folder(folder, SIDE)
    assert (captioned.captions, captioned.labels) == (("1", "2", "note.txt"), ())
    assert read_folder(folder, SIDE, "classes").labels == (0, 1, 2)
