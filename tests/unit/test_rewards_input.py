"""What a reward refuses: images, prompts, weights files and vocabularies, each in one sentence."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from comfyui_calibri.rewards import batch, catalogue
from comfyui_calibri.rewards.aesthetic import Aesthetic
from comfyui_calibri.rewards.clip_towers import load_clip
from comfyui_calibri.rewards.imagereward import ImageReward
from comfyui_calibri.rewards.vocabulary import BertVocabulary, ClipVocabulary
from comfyui_calibri.rewards.weights_file import check_whole, load_exactly, read_weights

from .. import reward_originals as small

GREY = torch.full((2, 8, 8, 3), 0.5)


@pytest.mark.parametrize(
    ("images", "prompts", "said"),
    [
        (GREY, ["a"], "X got 2 images and 1 prompts"),
        (GREY[..., :1], ["a", "b"], r"X got torch.float32 images of shape \(2, 8, 8, 1\)"),
        (GREY[0], ["a", "b"], r"shape \(8, 8, 3\)"),
        ((GREY * 255).byte(), ["a", "b"], "X got torch.uint8 images"),
        (GREY[:, :0], ["a", "b"], "images of 8 x 0 pixels"),
        (GREY * torch.tensor([1.0, float("nan")]).view(2, 1, 1, 1), ["a", "b"], "number 2 of 2"),
        (GREY / torch.tensor([0.0, 1.0]).view(2, 1, 1, 1), ["a", "b"], "number 1 of 2"),
    ],
)
def test_images_that_no_reward_can_score(images: Any, prompts: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        batch.check_batch("X", images, prompts)


def test_empty_prompts_are_refused_where_the_prompt_counts() -> None:
    batch.check_prompts("X", ["a", "b"])
    with pytest.raises(ValueError, match=r"prompt 2 of 2 is empty"):
        batch.check_prompts("X", ["a", " \n"])


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (torch.zeros(3), r"X answered \(3,\) for 2 images"),
        (torch.zeros(2, 1), r"X answered \(2, 1\)"),
        (torch.tensor([0.0, float("nan")]), "X gave 1 of 2 images a score that is NaN"),
        (torch.tensor([float("inf"), float("-inf")]), "X gave 2 of 2"),
        (0.5, "X answered float"),
    ],
)
def test_answers_that_are_no_scores(scores: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        batch.check_scores("X", scores, 2)


def test_damaged_and_foreign_weights_files_are_named(tmp_path: Path) -> None:
    for name in ("a.pt", "a.safetensors", "a.pth"):
        (tmp_path / name).write_bytes(b"half a download")
        with pytest.raises(ValueError, match=f"X cannot read .*{name}: it is damaged"):
            read_weights("X", tmp_path / name)
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="no named tensors"):
        read_weights("X", tmp_path / "list.pt")


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "old.pt"])
def test_half_a_download_is_seen_without_reading_it(tmp_path: Path, name: str) -> None:
    path, tensors = tmp_path / name, {"weight": torch.ones(1000)}
    if name == "a.safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=name != "old.pt")
    check_whole("X", path)
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"<html>404</html>", b""):
        path.write_bytes(broken)
        if name == "old.pt" and broken[:1] == whole[:1]:
            continue  # a plain pickle says its length nowhere: found when it is read
        with pytest.raises(ValueError, match=f"X cannot read .*{name}: it is damaged"):
            check_whole("X", path)


def test_a_pickle_in_a_weights_file_is_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
            return (exec, (f"open({str(trace)!r}, 'w').close()",))

    torch.save({"state_dict": {"weight": torch.zeros(1)}, "extra": Bomb()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="X cannot read"):
        read_weights("X", tmp_path / "a.pt")
    assert not trace.exists()


def test_wrappers_of_training_are_taken_off(tmp_path: Path) -> None:
    inner = {"module.weight": torch.ones(1, 2), "module.bias": torch.zeros(1)}
    torch.save({"state_dict": inner, "epoch": 3}, tmp_path / "a.pt")
    assert read_weights("X", tmp_path / "a.pt").keys() == {"weight", "bias"}


def test_weights_must_fit_to_the_last_tensor(tmp_path: Path) -> None:
    with torch.device("meta"):
        network = nn.Linear(2, 1)
    path = tmp_path / "x.pt"
    for weights, said in (
        ({"weight": torch.ones(1, 2)}, r"1 missing \(such as bias\)"),
        ({"weight": torch.ones(1, 3), "bias": torch.ones(1)}, r"1 misshapen \(such as weight\)"),
        ({**dict.fromkeys(("weight", "bias", "c"), torch.ones(1))}, r"1 unknown \(such as c\)"),
    ):
        with pytest.raises(ValueError, match=f"does not hold the weights of X.*{said}"):
            load_exactly("X", path, network, weights)
    half = {"weight": torch.ones(1, 2).half(), "bias": torch.ones(1).half()}
    load_exactly("X", path, network, half)
    assert network.weight.dtype == torch.float32


def test_the_weights_of_another_reward_are_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(1, 2), "bias": torch.ones(1)}, tmp_path / "head.safetensors")
    vocabulary = small.bert_vocabulary(tmp_path / "vocab.txt")
    with pytest.raises(ValueError, match="does not hold the weights of ImageReward"):
        ImageReward.load(tmp_path / "head.safetensors", vocabulary)
    with pytest.raises(ValueError, match="PickScore needs a CLIP with an image and a text tower"):
        load_clip("PickScore", tmp_path / "head.safetensors")
    text_only = small.tensors(
        {
            k: v
            for k, v in small.recordings()["PickScore"]["shapes"].items()
            if k.startswith("text_")
        }
    )
    save_file(text_only, tmp_path / "clip_l.safetensors")
    with pytest.raises(ValueError, match="often hold half of one"):
        load_clip("CLIPScore", tmp_path / "clip_l.safetensors")


def test_an_aesthetic_head_needs_the_clip_it_was_made_for(tmp_path: Path) -> None:
    entry = small.recordings()["LAION aesthetic"]
    save_file(small.tensors(entry["clip"]), tmp_path / "clip.safetensors")
    save_file({"weight": torch.ones(1, 768), "bias": torch.ones(1)}, tmp_path / "h.safetensors")
    with pytest.raises(ValueError, match=r"takes vectors of 768 numbers but the CLIP .* gives 48"):
        Aesthetic.load(tmp_path / "h.safetensors", tmp_path / "clip.safetensors")


def test_the_first_aesthetic_head_is_one_linear_layer(tmp_path: Path) -> None:
    entry = small.recordings()["LAION aesthetic"]
    save_file(small.tensors(entry["clip"]), tmp_path / "clip.safetensors")
    head = {"weight": torch.randn(1, 48), "bias": torch.tensor([5.0])}
    save_file(head, tmp_path / "h.safetensors")
    reward = Aesthetic.load(tmp_path / "h.safetensors", tmp_path / "clip.safetensors")
    scores = reward.score(torch.rand(3, 40, 50, 3), ["", "", ""])
    assert scores.shape == (3,)
    assert bool((scores - 5.0).abs().le(head["weight"].norm()).all())


def test_vocabularies_are_never_silently_empty(tmp_path: Path) -> None:
    vocabulary = small.bert_vocabulary(tmp_path / "vocab.txt")
    BertVocabulary("X", vocabulary)
    lines = vocabulary.read_text(encoding="utf-8").splitlines()
    (tmp_path / "short.txt").write_text("\n".join(lines[:5]), encoding="utf-8")
    (tmp_path / "other.txt").write_text("\n".join(lines[::-1]), encoding="utf-8")
    for name in ("short.txt", "other.txt", "none.txt"):
        with pytest.raises(ValueError, match=f"X cannot read prompts: .*{name} is not the vocab"):
            BertVocabulary("X", tmp_path / name)
    with pytest.raises(ValueError, match=r"X cannot read prompts: .* does not hold CLIP's"):
        ClipVocabulary("X", tmp_path)


def test_long_prompts_are_cut_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = BertVocabulary("X", small.bert_vocabulary(tmp_path / "vocab.txt"))
    with caplog.at_level(logging.WARNING):
        words(["a red circle"], 35)
        assert not caplog.records
        tokens, mask = words(["a red circle", "a red circle " * 20], 35)
    assert "X reads the first 35 tokens of a prompt; 1 of 2 prompts are longer" in caplog.text
    assert tokens.shape == mask.shape == (2, 35)
    assert tokens[:, 0].tolist() == [101, 101]
    assert tokens[1, -1] == 102  # the end survives the cut
    assert mask.sum(1).tolist() == [5, 35]


@pytest.mark.parametrize(
    ("kind", "names", "found"),
    [
        ("ImageReward", ["ImageReward.pt", "med.pt"], "ImageReward.pt"),
        ("PickScore", ["PickScore_v1/model.safetensors"], "PickScore_v1/model.safetensors"),
        ("PickScore", ["PickScore_v1\\pytorch_model.bin"], "PickScore_v1\\pytorch_model.bin"),
        ("HPSv2", ["HPSv2/HPS_v2.1_compressed.pt"], None),
        ("HPSv2", ["HPS_v2.1_compressed.pt", "HPS_v2_compressed.pt"], "HPS_v2_compressed.pt"),
        ("HPSv2.1", ["HPS_v2.1_compressed.pt", "HPS_v2_compressed.pt"], "HPS_v2.1_compressed.pt"),
        ("HPSv2.1", ["HPSv2/HPS_v2_compressed.pt"], None),
        ("CLIPScore", ["clip_l.safetensors", "ViT-L-14-TE-only.safetensors"], None),
        ("CLIPScore", ["text_encoders/ViT-L-14.safetensors"], "text_encoders/ViT-L-14.safetensors"),
        (
            "LAION aesthetic",
            ["x/sac+logos+ava1-l14-linearMSE.pth"],
            "x/sac+logos+ava1-l14-linearMSE.pth",
        ),
    ],
)
def test_published_files_are_known_by_their_names(
    kind: str, names: list[str], found: str | None
) -> None:
    assert catalogue.KINDS[kind].find(names) == found


def test_a_missing_file_tells_place_size_licence_and_source() -> None:
    for entry in catalogue.KINDS.values():
        said = entry.missing("/comfy/models/reward")
        for word in (entry.kind, entry.file, "/comfy/models/reward", entry.licence, entry.source):
            assert word in said
        assert "GB" in said or "MB" in said
        assert entry.find([entry.file]) == entry.file
