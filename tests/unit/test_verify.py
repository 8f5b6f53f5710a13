"""`verify` on recordings of our own reference, which folds coefficients into weights, and on the
official code's where they are there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from comfyui_calibri.calibri.official import dead_indices, read_layout
from comfyui_calibri.calibri.official_vector import OfficialVector, read_official_vector
from comfyui_calibri.calibri.verification import verify

from ..official_folder import official_vectors
from ..official_recordings import RECORDINGS, write_vector

pytestmark = pytest.mark.slow

VECTORS = official_vectors()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    for recording in RECORDINGS:
        write_vector(recording, folder)
    return folder


@pytest.mark.parametrize("name", [recording.name for recording in RECORDINGS])
def test_recordings_of_the_reference(folder: Path, name: str) -> None:
    vector = read_official_vector(folder / f"{name}.json")
    found = verify(vector)
    assert found.agrees, found
    assert found.identity.difference == 0.0
    assert (found.plain is None) == (vector.mode == "cfg")
    if any(vector.coefficients[-found.layout.members :]):
        assert vector.plain_output is not None
        assert (vector.output - vector.plain_output).abs().max() > 0.1, "nothing was calibrated"


def changed(vector: OfficialVector, position: int) -> OfficialVector:
    coefficients = list(vector.coefficients)
    coefficients[position] += 0.02
    return replace(vector, coefficients=tuple(coefficients))


@pytest.mark.parametrize(
    "name", ["flux_block", "flux_layer", "flux_gate", "sd35_guided", "qwen_of_three", "qwen_guided"]
)
def test_every_number_counts_except_the_dead_ones(folder: Path, name: str) -> None:
    vector = read_official_vector(folder / f"{name}.json")
    layout = read_layout(vector.shapes)
    dead = dead_indices(layout)
    assert len(dead) == (7 * layout.members if layout.family == "qwen-image" else 0)
    exact = verify(vector).output.difference
    for position in range(layout.total):
        found = verify(changed(vector, position)).output
        if position in dead:
            assert found.difference == exact, position
        else:
            assert not found.agrees, position


def test_an_output_that_is_not_a_number_does_not_agree(folder: Path) -> None:
    vector = read_official_vector(folder / "flux_block.json")
    assert not verify(replace(vector, output=torch.full_like(vector.output, torch.nan))).agrees


@pytest.mark.skipif(not VECTORS, reason="no official recordings: set CALIBRI_VECTORS to a folder")
class TestOfficialRecordings:
    @pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
    def test_they_are_reproduced(self, path: Path) -> None:
        found = verify(read_official_vector(path))
        assert found.agrees, found
        assert found.identity.difference == 0.0

    @pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
    def test_their_dead_coefficients_are_ours(self, path: Path) -> None:
        described = json.loads(path.read_text())
        layout = read_layout(described["shapes"])
        assert dead_indices(layout) == described["dead_coefficient_indices"]
