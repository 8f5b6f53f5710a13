"""Two processes train as one does on the joint batch, and stay in step to the bit."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from comfyui_calibri.ahpa.recipe import Recipe
from comfyui_calibri.ahpa.training import Trainer
from comfyui_calibri.training.accelerated import join
from comfyui_calibri.training.processes import ALONE, Alone
from comfyui_calibri.training.state import TrainingError

from .ahpa_subject import TinySubject
from .train_worlds import DEMO, train

METHODS = ("ahpa", "content", "sra", "none")
HERE = Path(__file__).parent


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def launched(script: list[str], count: int = 2, seconds: float = 240) -> list[tuple[int, str]]:
    """Processes that know each other as torchrun's do: exit codes, and what they said."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    running = []
    for rank in range(count):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
        running.append(
            subprocess.Popen(
                [sys.executable, *script],
                env={**os.environ, **shared, **own, "LOCAL_WORLD_SIZE": str(count)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        said = [process.communicate(timeout=seconds)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    return [(process.returncode, words) for process, words in zip(running, said, strict=True)]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    (folder / "comfyui_calibri").symlink_to(HERE.parents[1])
    return folder


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_the_joint_batch(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = [str(HERE / "joint_training.py"), str(package), ",".join(METHODS), str(package)]
    for code, words in launched(script):
        assert code == 0, words
    one, other = (torch.load(package / f"{rank}.pt") for rank in range(2))
    monkeypatch.syspath_prepend(str(HERE))
    from joint_training import trained  # type: ignore[import-not-found]

    for method in METHODS:
        alone = trained(method, ALONE)
        assert alone["gradients"], method
        for name, value in alone["gradients"].items():
            scale = float(value.abs().max())
            joint = one[method]["gradients"][name]
            assert torch.allclose(joint, value, atol=1e-4 * scale + 1e-9), (method, name)
        for name, value in alone["said"].items():
            assert torch.allclose(one[method]["said"][name], value, rtol=1e-3), (method, name)
        # Everything that the next step depends on, the router and the running means too.
        for part in ("gradients", "last", "said"):
            for name, value in one[method][part].items():
                assert torch.equal(value, other[method][part][name]), (method, part, name)
        if method != "none":
            close = one[method]["last"]["running"]
            assert torch.allclose(close, alone["last"]["running"], rtol=1e-3)


COMMAND = """
import os, signal, sys
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from comfyui_calibri.cli import app
from comfyui_calibri.commands.train_watch import Watch
shown = Watch.__call__
def watch(self, run):
    shown(self, run)
    if os.environ["RANK"] == "1" and run.trainer.loop.step == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGTERM)
Watch.__call__ = watch
app(["train", *sys.argv[3:]])
"""


@pytest.mark.slow
def test_the_command_on_two_processes_stops_in_both_and_comes_to_what_one_does(
    package: Path, tmp_path: Path
) -> None:
    options = [*map(str, DEMO), "--save-every", "10", "--cache", str(tmp_path / "cache")]
    alone = train(*options, "--output", tmp_path / "alone")
    assert alone.exit_code == 0, alone.output
    both = ["-c", COMMAND, str(package)]
    options += ["--output", str(tmp_path / "both"), "--json"]
    stopped = launched([*both, "2", *options])
    # The one that was not asked itself ends as by Ctrl-C.
    assert [code for code, _ in stopped] == [130, 143], stopped
    (first, spoken), (second, silent) = launched([*both, "-1", *options])
    assert (first, second) == (0, 0), (spoken, silent)
    assert '"began": 2' in spoken
    assert "began" not in silent
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("alone", "both"))
    for name, value in one.items():
        assert torch.allclose(value, two[name], rtol=1e-2, atol=1e-4), name


class Third(Alone):
    """One of three, the others being away."""

    count = 3


def test_a_batch_that_processes_cannot_share_is_refused() -> None:
    recipe = Recipe(method="none", batch=4)
    with pytest.raises(TrainingError, match="batch is 4 for 3 processes"):
        Trainer(TinySubject(), recipe, processes=Third())


def test_processes_that_see_different_states_are_refused() -> None:
    class Ahead(Third):
        def mean(self, value: Tensor) -> Tensor:
            return value + 1

    with pytest.raises(TrainingError, match="a disk that all machines share"):
        Trainer(TinySubject(), Recipe(method="none", batch=3), processes=Ahead())


def test_accelerate_is_joined_only_where_it_was_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    processes, device, precision = join(True, None)
    assert (processes, device.type, precision) == (ALONE, "cpu", "float32")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(TrainingError, match=r"pip install 'comfyui-calibri\[train\]'"):
        join(True, None)
