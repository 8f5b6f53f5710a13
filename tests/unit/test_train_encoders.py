"""`train` with encoders of transformers' folders: captions by a CLIP, REPA by a DINOv2."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from comfyui_calibri.ahpa.transformers_folder import ClipText, EncoderError, VisionFolder

from .train_worlds import SIT, pictures, train, vae

CPU = torch.device("cpu")
WORDS = ("a", "red", "cat", "dog")


def clip(folder: Path) -> Path:
    """A text model of five words, and its tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

    ids = {word: number for number, word in enumerate(("<pad>", "<start>", "<end>", "?", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("<start>", 1), ("<end>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing("<start> $A <end>", None, ends)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="?")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    told = {"num_attention_heads": 2, "max_position_embeddings": 8, "vocab_size": len(ids)}
    ends_at = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    CLIPTextModel(CLIPTextConfig(**sizes, **told, **ends_at)).save_pretrained(folder)
    return folder


def dino(folder: Path) -> Path:
    """An image encoder of 2 x 2 tokens and one for the whole."""
    from transformers import Dinov2Config, Dinov2Model

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    Dinov2Model(Dinov2Config(**sizes, image_size=28, patch_size=14)).save_pretrained(folder)
    return folder


def test_captions_through_a_clip_and_alignment_to_an_image_encoder(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", [f"{n}.png" for n in range(5)])
    for number, path in enumerate(sorted(data.glob("*.png"))):
        path.with_suffix(".txt").write_text("a red cat" if number % 2 else "a dog")
    files = ["--vae", vae(tmp_path / "vae"), "--text-encoder", clip(tmp_path / "clip")]
    options = [*SIT, "--data", data, *files, "--output", tmp_path / "run"]
    lacking = train(*options, "--method", "repa")
    assert lacking.exit_code == 2
    assert "give one with --vision" in lacking.stderr
    done = train(*options, "--method", "repa", "--vision", dino(tmp_path / "dino"))
    assert done.exit_code == 0, done.output
    text = ClipText(tmp_path / "clip", CPU)
    (found,) = text(["a red cat", "a dog", "a red cat"])
    assert found.shape == (3, 16)
    assert torch.equal(found[0], found[2])
    assert not torch.allclose(found[0], found[1])


def test_an_image_encoders_tokens_lie_where_the_picture_does(tmp_path: Path) -> None:
    encoder = VisionFolder(dino(tmp_path), CPU)
    picture = torch.full((1, 3, 32, 32), 0.5)
    (plain,) = encoder.read(picture, (2, 2))
    picture[:, :, 20:, :12] = 1.0
    (changed,) = encoder.read(picture, (2, 2))
    assert plain.shape == (1, 4, 16)
    moved = (changed - plain).abs().sum(dim=-1)[0]
    assert int(moved.argmax()) == 2  # below, on the left


def test_folders_of_something_else_are_refused(tmp_path: Path) -> None:
    for kind in (ClipText, VisionFolder):
        with pytest.raises(EncoderError, match=r"that can be read .*give a"):
            kind(tmp_path, CPU)
