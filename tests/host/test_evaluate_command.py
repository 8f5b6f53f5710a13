"""`comfyui-calibri evaluate` on a ComfyUI model: in a process of its own, without a server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from comfyui_calibri.demo.weights import DIT, TEXT_ENCODER, VAE, WEIGHTS

pytestmark = pytest.mark.oldest

PRESET = WEIGHTS / "calibri" / "calibri-demo.safetensors"
PROMPTS = ("a large red circle on a white background", "a small blue star")
MODEL = [
    *("--diffusion-model", WEIGHTS / DIT),
    *("--text-encoder", WEIGHTS / TEXT_ENCODER),
    *("--vae", WEIGHTS / VAE),
]


def evaluate(root: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """From the clone's folder, whose `nodes` must not be taken for ComfyUI's."""
    command = [sys.executable, "-m", "comfyui_calibri", "evaluate", PRESET, *arguments]
    return subprocess.run(list(map(str, command)), cwd=root, capture_output=True, text=True)


def test_comfyui_draws_what_the_command_lines_own_sampler_draws(
    root: Path, comfyui: Path, tmp_path: Path, newest: bool
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS))
    common = ["--prompts", prompts, "--steps", 2, "--images-per-prompt", 1, "--json"]
    in_comfyui = ["--comfyui", comfyui, "--cpu", "--reward", "demo"]
    done = evaluate(root, *MODEL, *common, *in_comfyui, "--output", tmp_path / "comfyui")
    if not newest:  # its loader knows FLUX at its full width only
        assert done.returncode == 2
        assert "ComfyUI does not load the diffusion model" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    own = evaluate(root, "--demo", *common, "--output", tmp_path / "own")
    assert own.returncode == 0, own.stderr
    theirs, ours = (json.loads(one.stdout) for one in (done, own))
    assert theirs["settings"] == ours["settings"]
    for cell, same in zip(theirs["cells"], ours["cells"], strict=True):
        assert cell["nfe"] == same["nfe"] == 2
        scores = [one["rewards"]["demo reward"]["scores"] for one in (cell, same)]
        np.testing.assert_allclose(scores[0], scores[1], atol=1e-3)
    plain, calibrated = (cell["rewards"]["demo reward"]["scores"] for cell in theirs["cells"])
    assert plain != calibrated
