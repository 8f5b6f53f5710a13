"""The demo's text encoder in ComfyUI: it encodes as the demo does, and other files are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import folder_paths
import pytest
import torch
from safetensors.torch import load_file, save_file

from comfyui_calibri.demo.text_encoder import VOCABULARY, TextEncoder, token_rows
from comfyui_calibri.nodes import folders
from comfyui_calibri.nodes.demo_clip import load_text_encoder

from .tiny_patchers import make_clip

pytestmark = pytest.mark.oldest


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def test_demo_text_encoder_encodes_as_the_demo_does(tmp_path: Path) -> None:
    clip = make_clip(tmp_path)
    encoder = TextEncoder()
    encoder.load_state_dict(load_file(tmp_path / "text-encoder.safetensors"))
    for prompt in ("a small red circle left of a large blue square on a white background", ""):
        tokens, pooled = encoder(token_rows([prompt]))
        ((encoded, options),) = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
        torch.testing.assert_close(encoded, tokens, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(options["pooled_output"], pooled, rtol=1e-5, atol=1e-5)


def test_demo_text_encoder_weights_words_and_takes_long_prompts(tmp_path: Path) -> None:
    import nodes

    clip = make_clip(tmp_path)

    def encode(text: str) -> torch.Tensor:
        result: torch.Tensor = nodes.CLIPTextEncode().encode(clip, text)[0][0][0]
        return result

    plain = encode("a red circle")
    assert torch.equal(encode("a (red:1.0) circle"), plain)
    assert not torch.allclose(encode("a (red:1.2) circle"), plain)
    assert encode("a red circle " * 10).shape == (1, 48, 64)
    assert encode("a red circle " * 10).isfinite().all()


def test_words_the_demo_does_not_know_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip = make_clip(tmp_path)
    clip.tokenize("a zebra and a zebra on a unicorn")
    assert "does not know: zebra, unicorn" in caplog.text
    assert VOCABULARY[-1] in caplog.text


def test_other_files_are_no_demo_text_encoder(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, other)
    with pytest.raises(ValueError, match="is not the demo's text encoder"):
        load_text_encoder(other)
    other.write_bytes(b"no safetensors")
    with pytest.raises(ValueError, match="cannot be read"):
        load_text_encoder(other)


def test_only_small_files_are_offered_as_demo_text_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "text_encoders"
    folder.mkdir()
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, "text_encoders", ([str(folder)], {".safetensors"})
    )
    folder_paths.filename_list_cache.pop("text_encoders", None)
    (folder / "t5xxl.safetensors").write_bytes(bytes(5 * 2**20))
    (folder / "small.safetensors").write_bytes(bytes(10))
    assert folders.text_encoder_files() == ["small.safetensors"]
