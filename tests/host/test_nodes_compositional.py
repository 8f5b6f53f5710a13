"""Things, counts, colours and places of a prompt, through a CLIP's file and through detectors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.model_management
import folder_paths
import pytest
import torch

from comfyui_calibri.nodes import folders
from comfyui_calibri.nodes.compositional_rewards import (
    IN_PROMPT,
    CalibriCompositionalReward,
    CalibriScoreDetections,
)
from comfyui_calibri.rewards.protocol import Reward

from .. import reward_originals as small
from .test_nodes_workflow_reward import between, host, node, reward_of  # noqa: F401

pytestmark = pytest.mark.oldest

RECORDED = small.recordings()
_FOLDERS = dict(folder_paths.folder_names_and_paths)


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """ComfyUI's models and input folders, empty, in its inference mode."""
    root = tmp_path / "models"
    known = {name: ([str(root / name)], set(kinds)) for name, (_, kinds) in _FOLDERS.items()}
    monkeypatch.setattr(folder_paths, "models_dir", str(root))
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", known)
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path))
    for name in ("reward", "text_encoders"):
        (root / name).mkdir(parents=True)
    folders.register()
    folder_paths.filename_list_cache.clear()
    with torch.inference_mode():
        yield root


def squares(*columns: int) -> torch.Tensor:
    """A black picture of 40 x 80 pixels with white squares of 10 at these columns."""
    picture = torch.zeros(1, 40, 80, 3)
    for column in columns:
        picture[:, 15:25, column : column + 10] = 1.0
    return picture


def test_a_clip_file_becomes_a_reward_of_facts(models: Path, tmp_path: Path) -> None:
    weights = small.tensors(RECORDED["PickScore"]["shapes"])
    torch.save(weights, models / "reward" / "small-clip.pt")
    folder_paths.filename_list_cache.clear()
    reward = CalibriCompositionalReward.execute("small-clip.pt").args[0]
    assert isinstance(reward, Reward)
    assert reward.name == "composition by CLIPScore (small-clip)"
    images = torch.rand(2, 16, 16, 3)
    scores = reward.score(images, ["two red cubes left of a ball", "a cat"])
    assert bool(((scores > 0) & (scores < 1)).all())
    alone = reward.score(images[1:], ["a cat"])
    torch.testing.assert_close(alone, scores[1:])
    objects = [{"name": "cat", "count": 3}]
    (tmp_path / "d.json").write_text(json.dumps([{"prompt": "a cat", "objects": objects}]))
    written = CalibriCompositionalReward.execute("small-clip.pt", "d.json").args[0]
    assert written.name.startswith("composition of d.json (")
    assert not torch.allclose(written.score(images[1:], ["a cat"]), alone)
    assert CalibriCompositionalReward.validate_inputs(demands="d.json") is True
    assert "cannot be read" in str(CalibriCompositionalReward.validate_inputs(demands="x.json"))
    assert "outside" in str(CalibriScoreDetections.validate_inputs(demands="../x.json"))


def test_a_detector_in_a_workflow_is_a_reward() -> None:
    prompt = between("FindsWhite")
    prompt["2"] = node(
        "CalibriScoreDetections",
        images=["0", 0], boxes=["1", 0], prompt=["0", 1], threshold=0.3, label="",
        demands=IN_PROMPT,
    )  # fmt: skip
    reward = reward_of(prompt, "2")
    images = torch.cat([squares(), squares(10), squares(10, 60)])
    scores = reward.score(images, ["two white squares"] * 3)
    torch.testing.assert_close(scores, torch.tensor([0.0, 0.5, 1.0]))
    scores = reward.score(images, ["a square left of a square", "one square", "a black square"])
    torch.testing.assert_close(scores, torch.tensor([0.0, 1.0, 0.5]))


def detections(images: torch.Tensor, boxes: Any, prompt: str, label: str = "") -> list[float]:
    scores: list[float] = CalibriScoreDetections.execute(images, boxes, prompt, 0.5, label).args[1]
    return scores


def box(**changes: Any) -> dict[str, Any]:
    return {"x": 10, "y": 15, "width": 10, "height": 10, "label": "cat", "score": 0.9, **changes}


def test_boxes_come_in_three_forms_and_unsure_ones_are_left_out() -> None:
    image = squares(10)
    for boxes in (box(), [box()], [[box()]]):
        assert detections(image, boxes, "a white cat") == [1.0]
    assert detections(image, [[box(score=0.4)]], "a cat") == [0.0]
    assert detections(image, [[]], "a cat") == [0.0]
    unnamed = box()
    del unnamed["label"]
    assert detections(image, [[unnamed]], "a cat", "cat") == [1.0]
    # A box that leaves the picture has no colour there.
    assert detections(image, [[box(x=100)]], "a white cat") == [0.5]


@pytest.mark.parametrize(
    ("boxes", "prompt", "problem"),
    [
        ("text", "a cat", "are str and no detections"),
        ([[box()], [box()]], "a cat", "1 images and boxes of 2"),
        ([[{"x": 1}]], "a cat", "A box is"),
        ([[box(label="")]], "a cat", "have no names"),
        ([[box()]], "", "names nothing"),
    ],
)
def test_what_is_no_detection_is_refused(boxes: Any, prompt: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        detections(squares(10), boxes, prompt)


def test_comfyuis_detector_gives_what_is_scored(
    newest: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not newest:
        pytest.skip("v0.3.64 has no detectors")
    from comfy_extras.nodes_rtdetr import COCO_CLASSES, RTDETR_detect

    monkeypatch.setattr(comfy.model_management, "load_model_gpu", lambda model: None)
    found = {
        "boxes": torch.tensor([[10.0, 15.0, 20.0, 25.0]]),
        "labels": torch.tensor([COCO_CLASSES.index("cat")]),
        "scores": torch.tensor([0.9]),
    }
    network = SimpleNamespace(diffusion_model=lambda images, size: [found] * len(images))
    model = SimpleNamespace(model=network)
    (boxes,) = RTDETR_detect.execute(model, squares(10), 0.5, "all", 10).args
    assert detections(squares(10), boxes, "a white cat") == [1.0]
    given = RTDETR_detect.RETURN_TYPES[0]
    taken = CalibriScoreDetections.INPUT_TYPES()["required"]["boxes"][0]
    assert given == taken == "BOUNDING_BOX"
