"""What a reward sees of a calibration: a small VAE's pictures while searching, or latents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from comfy.sd import VAE

from comfyui_calibri.nodes import sampling
from comfyui_calibri.nodes.calibrate import CalibriCalibrate
from comfyui_calibri.nodes.decoding import COMPARED
from comfyui_calibri.nodes.scoring import CalibriScoreImages

from .tiny_fixtures import inference  # noqa: F401
from .tiny_inputs import calibration_inputs
from .tiny_patchers import Brightness, make_vae

pytestmark = [pytest.mark.oldest, pytest.mark.usefixtures("output")]

SEARCHED = 16 * 2  # images: candidates, prompts of a bucket


class CountingVAE:
    """A VAE that counts the images it decodes, and may turn them over."""

    def __init__(self, inverts: bool = False) -> None:
        self._vae: VAE = make_vae()
        self._inverts = inverts
        self.decoded = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vae, name)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        self.decoded += len(latents)
        images = self._vae.decode(latents)
        return 1.0 - images if self._inverts else images


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    """One generation of 2 prompts; 2 more are held out."""
    return {
        **calibration_inputs(tmp_path),
        "vae": CountingVAE(),
        "prompts": ("a red circle", "two green stars"),
        "steps": 1,
        "granularity": "block",
        "generations": 1,
    }


def report(output: Path, run_name: str = "trial") -> dict[str, Any]:
    file = output / "calibri" / run_name / "report.json"
    numbers: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return numbers


def test_the_search_is_decoded_small_and_all_else_in_full(
    inputs: dict[str, Any], output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    full = inputs["vae"]
    plain = CalibriCalibrate.execute(**inputs)
    everything, full.decoded = full.decoded, 0
    assert "preview_decoder" not in report(output)
    small = CountingVAE()
    result = CalibriCalibrate.execute(**{**inputs, "preview_vae": small, "run_name": "small"})
    assert small.decoded == SEARCHED
    # The search's first batch is decoded both ways.
    measured = report(output, "small")["preview_decoder"]
    assert measured["rank_correlation"] == pytest.approx(1.0)
    assert full.decoded == everything - SEARCHED + measured["images"]
    assert "correlation of 1.00 on the run's first" in caplog.text
    assert "correlation of 1.00 on the run's first" in result.ui["text"][0]
    # Two equal VAEs find the same.
    assert result.args[0].members == plain.args[0].members


def test_small_batches_are_measured_together_and_a_resumed_run_remembers(
    inputs: dict[str, Any], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "MAX_ROWS_CPU", 3)
    small = CountingVAE()
    CalibriCalibrate.execute(**inputs, preview_vae=small)
    measured = report(output)["preview_decoder"]
    assert COMPARED <= measured["images"] < COMPARED + 3
    assert measured["rank_correlation"] == pytest.approx(1.0)
    # Read again from its journal: nothing is searched, nothing measured.
    (output / "calibri" / "trial" / "report.json").unlink()
    small.decoded = 0
    again = CalibriCalibrate.execute(**inputs, preview_vae=small)
    assert small.decoded == 0
    assert report(output)["preview_decoder"] == measured
    assert "correlation of 1.00" in again.ui["text"][0]


def test_a_preview_that_ranks_otherwise_is_named(
    inputs: dict[str, Any], output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    CalibriCalibrate.execute(**inputs, preview_vae=CountingVAE(inverts=True))
    assert report(output)["preview_decoder"]["rank_correlation"] == pytest.approx(-1.0)
    assert "That is low: disconnect preview_vae" in caplog.text


def test_a_preview_of_other_latents_is_refused(inputs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="decodes latents of 4 channels, 8 pixels a cell, but"):
        CalibriCalibrate.execute(**inputs, preview_vae=make_vae(4))


class LatentMean:
    """Scores latents."""

    name, differentiable, accepts = "latent mean", False, "latents"

    def __init__(self) -> None:
        self.shapes: set[tuple[int, ...]] = set()

    def score(self, latents: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        self.shapes.add(tuple(latents.shape[1:]))
        return latents.float().mean(dim=(1, 2, 3))


def test_a_reward_of_latents_gets_them_undecoded(inputs: dict[str, Any], output: Path) -> None:
    reward = LatentMean()
    CalibriCalibrate.execute(**{**inputs, "reward": reward})
    assert reward.shapes == {(16, 2, 2)}
    # The pictures that are shown, not those that are scored.
    assert inputs["vae"].decoded < SEARCHED
    with pytest.raises(ValueError, match="latent mean scores latents"):
        CalibriScoreImages.execute(torch.rand(1, 8, 8, 3), reward, "a cat")


class Constant(Brightness):
    """Sees no difference."""

    name = "constant"

    def score(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        return torch.full((len(images),), 0.5)


def test_a_reward_that_sees_no_difference_is_named(
    inputs: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    result = CalibriCalibrate.execute(**{**inputs, "reward": Constant()})
    assert "constant scores every candidate alike, so the search learns nothing" in caplog.text
    assert "was better than the plain model" in result.ui["text"][0]
