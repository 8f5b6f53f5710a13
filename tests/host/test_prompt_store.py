"""Encoded prompts on disk: found again bit for bit by the same encoder, and by no other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import folder_paths
import pytest
import torch
from comfy.sd import CLIP

from comfyui_calibri.nodes import encoded_prompts, prompt_store
from comfyui_calibri.nodes.encoded_prompts import EncodedPrompts

from .tiny_patchers import make_clip

pytestmark = pytest.mark.oldest

PROMPTS = ("a red circle", "two green stars")
CPU = torch.device("cpu")


@pytest.fixture
def clip(tmp_path: Path) -> CLIP:
    return make_clip(tmp_path)


@pytest.fixture
def encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are encoded from here on; the store is empty and keeps everything."""
    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path / "user"))
    monkeypatch.setattr(prompt_store, "WORTH_SECONDS", 0.0)
    texts: list[str] = []
    really = encoded_prompts.encode

    def encode(clip: CLIP, text: str, guidance: float | None) -> Any:
        texts.append(text)
        return really(clip, text, guidance)

    monkeypatch.setattr(encoded_prompts, "encode", encode)
    return texts


def ready(clip: CLIP, negative: str = "", guidance: float | None = 3.5) -> EncodedPrompts:
    prompts = EncodedPrompts(clip, PROMPTS, negative, guidance, CPU)
    prompts.encode(lambda: None)
    return prompts


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [part for key in sorted(value) for part in (key, *flat(value[key]))]
    if isinstance(value, (list, tuple)):
        return [type(value), *(part for item in value for part in flat(item))]
    if torch.is_tensor(value):
        return [value.dtype, value.shape, value.numpy().tobytes()]
    return [value]


def test_found_again_to_the_last_bit(clip: CLIP, encoded: list[str]) -> None:
    first = ready(clip)
    assert encoded == [*PROMPTS, ""]
    second = ready(clip)
    assert encoded == [*PROMPTS, ""]
    assert flat(second.positive([0, 1])) == flat(first.positive([0, 1]))
    assert flat(second.negative) == flat(first.negative)
    assert [second.signature(i) for i in (0, 1)] == [first.signature(i) for i in (0, 1)]


def test_other_words_guidance_or_encoders_are_encoded(
    clip: CLIP, encoded: list[str], tmp_path: Path
) -> None:
    ready(clip)
    ready(clip, negative="ugly")
    ready(clip, guidance=4.0)
    skipped = clip.clone()
    skipped.clip_layer(-2)
    ready(skipped)
    with torch.no_grad():
        next(iter(clip.patcher.model.parameters())).mul_(1.5)
    ready(clip)
    assert len(encoded) == 5 * 3


def test_what_took_no_time_is_not_kept(
    clip: CLIP, encoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_store, "WORTH_SECONDS", 3600.0)
    ready(clip)
    assert not prompt_store.prompts_folder().exists()


def test_a_damaged_file_is_replaced(clip: CLIP, encoded: list[str]) -> None:
    ready(clip)
    (file,) = prompt_store.prompts_folder().iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    ready(clip)
    assert len(encoded) == 2 * 3
    assert list(prompt_store.prompts_folder().iterdir()) == [file]
    assert file.read_bytes() == whole


def test_a_full_disk_loses_nothing(
    clip: CLIP, encoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prompt_store, "save_file", fail)
    assert ready(clip).positive([0])
    assert list(prompt_store.prompts_folder().iterdir()) == []


def test_objects_of_a_process_are_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "kept.safetensors"
    prompt_store.keep(path, [[(torch.zeros(1, 2, 3), {"hooks": object()})]])
    assert list(tmp_path.iterdir()) == []


def test_what_was_used_longest_ago_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_store, "MOST_BYTES", 10_000)
    paths = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for age, path in enumerate(paths):
        prompt_store.keep(path, [[(torch.zeros(1, 1000), {})]])
        os.utime(path, (100 + age, 100 + age))
    assert [path.exists() for path in paths] == [False, True, True]
    prompt_store.find(paths[1], 1)
    prompt_store.keep(paths[0], [[(torch.zeros(1, 1000), {})]])
    assert [path.exists() for path in paths] == [True, True, False]
    prompt_store.keep(paths[2], [[(torch.zeros(1, 4000), {})]])
    assert not paths[2].exists()  # larger than all the room there is
