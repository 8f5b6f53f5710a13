"""The last bits of a recorded model's frequencies: found again, and what they matter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from comfyui_calibri.calibri.official_vector import read_official_vector
from comfyui_calibri.calibri.recorded_timesteps import RecordedTimesteps
from comfyui_calibri.calibri.verification import verify

from ..official_recordings import RECORDINGS, write_vector

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("flipped", [False, True])
def test_the_embedding_is_that_of_diffusers(flipped: bool) -> None:
    from diffusers.models.embeddings import Timesteps

    original = Timesteps(256, flip_sin_to_cos=flipped, downscale_freq_shift=0, scale=1000)
    timesteps = torch.tensor([0.7, 0.3, 3.5])
    found = RecordedTimesteps(original)(timesteps)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), original(timesteps), rtol=0, atol=3e-7)


def test_doubtful_frequencies_are_next_to_the_middle_of_two_floats() -> None:
    from diffusers.models.embeddings import Timesteps

    timesteps = RecordedTimesteps(Timesteps(256, True, 0))
    assert {12, 13, 44} <= set(timesteps.doubtful)
    assert len(timesteps.doubtful) < 16
    for index in timesteps.doubtful:
        changed = timesteps.turned(index) != timesteps.frequencies
        assert changed.nonzero().flatten().tolist() == [index]


@pytest.mark.parametrize("name", ["flux_layer", "sd35", "qwen_of_three"])
def test_a_machine_that_rounds_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Its recordings are reproduced as those of this machine are."""
    from diffusers.models.embeddings import Timesteps

    (recording,) = (recording for recording in RECORDINGS if recording.name == name)
    timesteps = RecordedTimesteps(Timesteps(256, True, 0))
    for index in timesteps.doubtful:
        timesteps.frequencies = timesteps.turned(index)
    exp = torch.exp

    def otherwise(values: Tensor) -> Tensor:
        ours = values.dtype == torch.float32 and values.shape == timesteps.frequencies.shape
        return timesteps.frequencies.clone() if ours else exp(values)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "exp", otherwise)
        path = write_vector(recording, tmp_path)
    vector = read_official_vector(path)
    found = verify(vector).output
    assert found.difference < 0.15 * found.bound
    # Without its plain output nothing tells how it was rounded.
    untold = verify(replace(vector, plain_output=None)).output
    assert untold.difference > 2 * found.difference
