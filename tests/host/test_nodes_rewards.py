"""Rewards as nodes: found in ComfyUI's folders, loaded when needed, used on their own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import comfy.model_management
import folder_paths
import pytest
import torch
from safetensors.torch import save_file

from comfyui_calibri.demo.prompts import generate_prompts
from comfyui_calibri.demo.reward import DemoReward
from comfyui_calibri.nodes import folders, reward_files
from comfyui_calibri.nodes.combine_rewards import CalibriCombineRewards, CalibriRewardFloor
from comfyui_calibri.nodes.managed_reward import ManagedReward
from comfyui_calibri.nodes.rewards import CalibriDemoReward, CalibriLoadReward
from comfyui_calibri.nodes.scoring import CalibriPickBest, CalibriScoreImages
from comfyui_calibri.nodes.trainable import training_mode
from comfyui_calibri.rewards.protocol import Card, Reward

from .. import reward_originals as small

pytestmark = pytest.mark.oldest

RECORDED = small.recordings()
_FOLDERS = dict(folder_paths.folder_names_and_paths)


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ComfyUI's models folder, empty."""
    root = tmp_path / "models"
    known = {name: ([str(root / name)], set(kinds)) for name, (_, kinds) in _FOLDERS.items()}
    monkeypatch.setattr(folder_paths, "models_dir", str(root))
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", known)
    for name in ("reward", "text_encoders", "clip_vision"):
        (root / name).mkdir(parents=True)
    folders.register()
    folder_paths.filename_list_cache.clear()
    return root


class Brightness:
    """Scores an image's mean, and keeps the prompts it was asked about."""

    name, differentiable = "brightness", True
    card = Card("light", (0.0, 1.0), "none", 0, None)

    def __init__(self) -> None:
        self.asked: list[str] = []

    def score(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        self.asked += prompts
        return images.mean((1, 2, 3))


def greys(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 8, 8, 3)


def put_image_reward(models: Path) -> None:
    weights = small.tensors(RECORDED["ImageReward"]["shapes"])
    torch.save(weights, models / "reward" / "ImageReward.pt")
    (models / "reward" / "bert-base-uncased").mkdir()
    small.bert_vocabulary(models / "reward" / "bert-base-uncased" / "vocab.txt")


def published(kind: str, file: str = "auto", clip: str = "auto") -> ManagedReward:
    folder_paths.filename_list_cache.clear()
    made: ManagedReward = CalibriLoadReward.execute(kind, file, clip).args[0]
    return made


def picture() -> torch.Tensor:
    return torch.from_numpy(small.picture(*small.SIZES[0])).float()[None] / 255.0


def test_the_demo_reward_scores_as_before_and_comes_lazily() -> None:
    reward = CalibriDemoReward.execute().args[0]
    assert isinstance(reward, Reward)
    assert reward._reward is None
    prompts = generate_prompts(3, 0, "test")
    images = torch.rand(3, 64, 64, 3)
    expected = DemoReward.load(folders.DEMO_REWARD).score(images, prompts)
    torch.testing.assert_close(reward.score(images, prompts), expected, rtol=1e-5, atol=1e-6)
    assert (reward.name, reward.card) == (DemoReward.name, DemoReward.card)


@pytest.mark.parametrize("kind", ["ImageReward", "PickScore", "HPSv2", "HPSv2.1", "CLIPScore"])
def test_a_missing_file_is_one_sentence(models: Path, kind: str) -> None:
    with pytest.raises(ValueError, match=f"{kind} needs .* in {models / 'reward'} .*https://"):
        published(kind)
    # Said before the run, too.
    said = CalibriLoadReward.validate_inputs(kind, "auto", "auto")
    assert f"{kind} needs" in str(said)
    assert CalibriLoadReward.validate_inputs(None, None) is True


def test_published_files_load_when_the_first_image_comes(models: Path) -> None:
    put_image_reward(models)
    reward = published("ImageReward")
    assert reward._reward is None
    score = reward.score(picture(), small.PROMPTS[:1])
    assert abs(score.item() - RECORDED["ImageReward"]["scores"][0]) < 2e-6
    held = [model.model for model in comfy.model_management.current_loaded_models]
    assert reward._patcher in held
    comfy.model_management.unload_all_models()
    held = [model.model for model in comfy.model_management.current_loaded_models]
    assert reward._patcher not in held
    assert reward.score(picture(), small.PROMPTS[:1]).item() == score.item()


def test_gradients_flow_though_comfyui_runs_nodes_in_inference_mode(models: Path) -> None:
    put_image_reward(models)
    reward = published("ImageReward")
    reward.score(picture(), small.PROMPTS[:1])
    with torch.inference_mode(False), torch.enable_grad():
        images = (picture() + 0.0).clone().requires_grad_()
        reward.score(images, small.PROMPTS[:1]).sum().backward()
        assert images.grad is not None
        assert bool(images.grad.abs().sum() > 0)


def test_in_a_training_each_reward_is_there_for_the_backward_pass_of_all(models: Path) -> None:
    first, second = (ManagedReward("sum", Brightness.card, Network) for _ in range(2))
    images = torch.rand(1, 8, 8, 3)

    def loaded_after_both(gradient: bool) -> list[bool]:
        scored = images.clone().requires_grad_(gradient)
        first.score(scored, [""])
        comfy.model_management.unload_all_models()  # to make room for the second
        second.score(scored, [""])
        held = [model.model for model in comfy.model_management.current_loaded_models]
        return [reward._patcher in held for reward in (first, second)]

    with training_mode():
        images = images.clone()
        assert loaded_after_both(gradient=True) == [True, True]
    with training_mode():  # another training knows nothing of it
        assert loaded_after_both(gradient=False) == [False, True]
        second.score(images.requires_grad_(), [""])
        assert list(ManagedReward.with_gradient) == [second._patcher]


class Network(Brightness):
    """A network of one number."""

    def __init__(self) -> None:
        super().__init__()
        self.network = torch.nn.Linear(1, 1)


def test_many_images_are_scored_in_parts_of_the_same_answer(models: Path) -> None:
    put_image_reward(models)
    reward = published("ImageReward")
    images = torch.rand(19, 32, 32, 3)
    whole = reward.score(images, [small.PROMPTS[0]] * 19)
    last = reward.score(images[16:], [small.PROMPTS[0]] * 3)
    torch.testing.assert_close(whole[16:], last, rtol=1e-4, atol=1e-5)


def test_another_file_under_the_same_name_is_another_reward(models: Path) -> None:
    put_image_reward(models)
    before = published("ImageReward")
    assert before.weights == CalibriLoadReward.fingerprint_inputs("ImageReward", "auto") != ""
    weights = small.tensors(RECORDED["ImageReward"]["shapes"])
    torch.save({k: v + 0.01 for k, v in weights.items()}, models / "reward" / "ImageReward.pt")
    after = published("ImageReward")
    assert (after.name, after.weights != before.weights) == (before.name, True)
    assert after.weights == CalibriLoadReward.fingerprint_inputs("ImageReward", "auto")
    (models / "reward" / "ImageReward.pt").unlink()
    assert CalibriLoadReward.fingerprint_inputs("ImageReward", "auto") == ""
    assert CalibriLoadReward.fingerprint_inputs(None, None) == ""


def test_image_reward_says_where_its_vocabulary_belongs(models: Path) -> None:
    put_image_reward(models)
    vocabulary = models / "reward" / "bert-base-uncased" / "vocab.txt"
    vocabulary.rename(models / "reward" / "vocab.txt")
    published("ImageReward")
    (models / "reward" / "vocab.txt").unlink()
    with pytest.raises(ValueError, match=r"put vocab.txt .* into .*bert-base-uncased"):
        published("ImageReward")


def test_a_clip_may_lie_where_comfyui_keeps_its_own(models: Path) -> None:
    entry = RECORDED["CLIPScore"]
    save_file(small.tensors(entry["shapes"]), models / "text_encoders" / "ViT-L-14.safetensors")
    reward = published("CLIPScore")
    assert reward.name == "CLIPScore (ViT-L-14)"
    assert reward.score(picture(), small.PROMPTS[:1]).item() == pytest.approx(
        entry["scores"][0], rel=1e-5
    )
    named = published("CLIPScore", "text_encoders/ViT-L-14.safetensors")
    assert named.name == reward.name
    assert "text_encoders/ViT-L-14.safetensors" in reward_files.listed(("text_encoders",))


def test_the_aesthetic_head_finds_its_clip(models: Path) -> None:
    entry = RECORDED["LAION aesthetic"]
    head = models / "reward" / "sac+logos+ava1-l14-linearMSE.pth"
    torch.save(small.tensors(entry["shapes"]), head)
    with pytest.raises(ValueError, match="LAION aesthetic needs clip-vit-large-patch14"):
        published("LAION aesthetic")
    clip = {k: v for k, v in small.tensors(entry["clip"]).items() if k.startswith("visual.")}
    save_file(clip, models / "clip_vision" / "clip_vision_l.safetensors")
    reward = published("LAION aesthetic")
    assert reward.name == "LAION aesthetic on clip_vision_l"
    assert reward.score(picture(), [""]).item() == pytest.approx(entry["scores"][0], abs=1e-6)


def test_both_versions_of_hps_are_told_apart(models: Path) -> None:
    weights = small.tensors(RECORDED["HPSv2"]["shapes"])
    (models / "reward" / "HPSv2").mkdir()
    torch.save({"state_dict": weights}, models / "reward" / "HPSv2" / "HPS_v2.1_compressed.pt")
    reward = published("HPSv2.1")
    assert reward.name == "HPSv2.1"
    assert reward.score(picture(), small.PROMPTS[:1]).item() == pytest.approx(
        RECORDED["HPSv2"]["scores"][0], abs=1e-6
    )
    with pytest.raises(ValueError, match=r"HPSv2 needs HPS_v2_compressed\.pt"):
        published("HPSv2")
    # Weights of one's own are named after their file, so that no journal mixes them up.
    own = models / "reward" / "mine.pt"
    torch.save(weights, own)
    assert published("HPSv2", "mine.pt").name == "HPSv2 (mine)"


@pytest.mark.parametrize("name", ["../secret.pt", "/etc/passwd", "text_encoders/../../secret.pt"])
def test_a_workflow_names_nothing_outside_the_models_folders(models: Path, name: str) -> None:
    (models.parent / "secret.pt").write_bytes(b"x")
    for kind in ("PickScore", "CLIPScore"):
        with pytest.raises(ValueError, match=f"There is no '{name}' in ComfyUI's model folders"):
            published(kind, name)


def test_a_damaged_file_is_named_before_the_run(models: Path) -> None:
    (models / "reward" / "PickScore_v1.safetensors").write_bytes(b"<html>404</html>")
    folder_paths.filename_list_cache.clear()
    said = str(CalibriLoadReward.validate_inputs("PickScore", "auto", "auto"))
    assert re.match(r"PickScore cannot read .*PickScore_v1\.safetensors: it is damaged", said)
    with pytest.raises(ValueError, match="PickScore cannot read"):
        published("PickScore")


def test_score_images_gives_every_score_and_their_mean() -> None:
    reward = Brightness()
    result = CalibriScoreImages.execute(greys(0.25, 0.75), reward, "a cat")
    mean, scores = result.args
    assert (mean, scores) == (0.5, [0.25, 0.75])
    assert reward.asked == ["a cat", "a cat"]
    assert "brightness: mean 0.5000 of 2\n0: 0.2500\n1: 0.7500" in result.ui["text"][0]


def test_pick_best_keeps_the_best_first_and_their_alpha() -> None:
    reward = Brightness()
    images = torch.cat([greys(0.2, 0.9, 0.5), torch.ones(3, 8, 8, 1)], dim=-1)
    best, score, index = CalibriPickBest.execute(images, reward, "", 2, ("a", "b", "c")).args
    assert torch.equal(best, images[[1, 2]])
    assert score == pytest.approx(0.9)
    assert index == 1
    assert reward.asked == ["a", "b", "c"]
    assert len(CalibriPickBest.execute(images, reward, "", 99).args[0]) == 3


def test_equal_scores_keep_their_order() -> None:
    _, _, index = CalibriPickBest.execute(greys(0.5, 0.5, 0.5), Brightness(), "", 1).args
    assert index == 0


def test_scoring_names_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="3 images and 2 prompts"):
        CalibriScoreImages.execute(greys(0, 1, 0), Brightness(), "", ("a", "b"))
    with pytest.raises(ValueError, match="batch is empty"):
        CalibriScoreImages.execute(greys(0)[:0], Brightness(), "")
    with pytest.raises(ValueError, match="brightness got an image with NaN"):
        CalibriScoreImages.execute(greys(0, float("nan")), Brightness(), "")


def test_rewards_are_combined_on_the_plain_models_scale() -> None:
    first, second = Brightness(), Brightness()
    second.name = "second"
    images = greys(0.1, 0.3, 0.5, 0.7)
    total = CalibriCombineRewards.execute(
        images, "a", reward_1=first, weight_1=1.0, reward_2=second, weight_2=-2.0, weight_3=1.0
    ).args[0]
    assert total.name == "+1 brightness (0.4 ± 0.258) -2 second (0.4 ± 0.258)"
    scores = total.score(images, ["a"] * 4)
    assert bool((scores.diff() < 0).all())
    with pytest.raises(ValueError, match="brightness scores all 3 images"):
        CalibriCombineRewards.execute(greys(0.5, 0.5, 0.5), "a", reward_1=first, weight_1=1.0)


def test_a_floor_keeps_a_second_reward_from_falling() -> None:
    images = greys(0.1, 0.3, 0.5, 0.7)
    kept = CalibriRewardFloor.execute(images, "a", Brightness(), Brightness(), 2.0, 0.0).args[0]
    lost = images.mean((1, 2, 3)) - kept.score(images, ["a"] * 4)
    torch.testing.assert_close(lost, torch.tensor([0.6, 0.2, 0.0, 0.0]), rtol=1e-5, atol=1e-6)
