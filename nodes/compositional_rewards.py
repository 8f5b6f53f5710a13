"""Compositional Reward and Score Detections: things, counts, colours and places of a prompt.

`rewards/demands.py` reads the prompt; a CLIP or any detector looks at the picture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from . import folders, reward_files, sockets
from .messages import show_on_node
from .prompt_tools import input_files
from .scoring import one_each

if TYPE_CHECKING:
    import torch

    from ..rewards.compositional import Box
    from ..rewards.demands import Demand

IN_PROMPT = "the prompt's own words"
# ComfyUI's detectors give it since RT-DETR and SAM3; older ones have no class for it.
Boxes = io.Custom("BOUNDING_BOX")


class CalibriCompositionalReward(io.ComfyNode):
    """A CLIP asked one question for each thing, count, colour and place."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriCompositionalReward",
            display_name="Compositional Reward",
            category="Calibri/rewards",
            **sockets.search_aliases(
                "count objects", "GenEval", "attribute binding", "spatial relations"
            ),
            description="Scores whether a picture has the things, counts, colours and places of "
            "its prompt, as a CLIP sees them: 1 is all, 0 nothing. For what a detector sees, use "
            "Score Detections.",
            inputs=[
                io.Combo.Input(
                    "clip",
                    options=[
                        reward_files.AUTO,
                        *reward_files.listed(reward_files.WITH_CLIP),
                    ],
                    tooltip="A whole CLIP from models/reward or text_encoders. auto: "
                    "clip-vit-large-patch14.",
                ),
                _demands_input(),
            ],
            outputs=[sockets.Reward.Output(display_name="reward")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, demands: str | None, clip: str | None = None) -> bool | str:
        from ..rewards import catalogue

        try:
            if clip is not None:
                reward_files.chosen(catalogue.CLIP_SCORE, clip, reward_files.WITH_CLIP)
        except ValueError as error:
            return str(error)
        return _check_demands(demands)

    @classmethod
    def fingerprint_inputs(cls, demands: str | None, **_: object) -> float:
        return _changed(demands)

    @classmethod
    def execute(cls, clip: str, demands: str = IN_PROMPT) -> io.NodeOutput:
        from ..rewards import catalogue
        from ..rewards.clip_composition import ClipComposition
        from ..rewards.clip_rewards import CLIPScore
        from ..rewards.weights_mark import weights_mark
        from .managed_reward import ManagedReward

        path = reward_files.chosen(catalogue.CLIP_SCORE, clip, reward_files.WITH_CLIP)
        known, words = _read(demands), reward_files.clip_vocabulary()
        card = dataclasses.replace(ClipComposition.describe(), memory=path.stat().st_size)
        name = f"composition{_of_file(demands)} by {CLIPScore.named(path)}"
        made = ManagedReward(
            name,
            card,
            lambda: ClipComposition(CLIPScore.load(path, words), known),
            weights=weights_mark(path),
        )
        show_on_node(cls.hidden, f"{name}: {card.meaning}. 0 to 1, higher is better.")
        return io.NodeOutput(made)


class CalibriScoreDetections(io.ComfyNode):
    """How far the boxes of a detector are what a prompt demands."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriScoreDetections",
            display_name="Score Detections",
            category="Calibri/rewards",
            **sockets.search_aliases(
                "count objects", "GenEval", "bounding boxes", "detector score"
            ),
            description="Scores boxes that a detector found against a prompt's things, counts, "
            "colours and places, 0 to 1. Between a Reward Input and a Reward from Workflow it "
            "makes a reward of any detector.",
            inputs=[
                io.Image.Input("images", tooltip="The images that the detector looked at."),
                Boxes.Input(
                    "boxes",
                    tooltip="What it found, from RT-DETR, SAM3 Detect or another one.",
                    # Else the page draws a box to type in, and no socket.
                    extra_dict={"forceInput": True},
                ),
                io.String.Input(
                    "prompt", default="", multiline=True, tooltip="What the images should show."
                ),
                io.Float.Input(
                    "threshold",
                    default=0.3,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Boxes that the detector is less sure of are left out.",
                ),
                io.String.Input(
                    "label",
                    default="",
                    tooltip="What boxes without a name are: the word that SAM3 was asked for.",
                ),
                _demands_input(),
            ],
            outputs=[
                io.Float.Output(display_name="mean"),
                io.Float.Output(display_name="scores", is_output_list=True),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, demands: str | None) -> bool | str:
        return _check_demands(demands)

    @classmethod
    def fingerprint_inputs(cls, demands: str | None, **_: object) -> float:
        return _changed(demands)

    @classmethod
    def execute(
        cls,
        images: torch.Tensor,
        boxes: Any,
        prompt: str,
        threshold: float,
        label: str,
        demands: str = IN_PROMPT,
    ) -> io.NodeOutput:
        from ..rewards import compositional
        from ..rewards.demands import demand_of

        (text,) = set(one_each(images, prompt, None))
        demand = demand_of(text, _read(demands))
        scores, told = [], []
        for image, found in zip(images, _by_image(boxes, len(images)), strict=True):
            sure = [_box(entry, label) for entry in found]
            sure = [box for box in sure if box.score >= threshold]
            facts = compositional.facts(demand, sure, _Middle(image).share)
            scores.append(sum(value for _, value in facts) / len(facts))
            told.append(", ".join(f"{words}: {value:.2f}" for words, value in facts))
        mean = sum(scores) / len(scores)
        show_on_node(cls.hidden, f"{mean:.3f}\n" + "\n".join(told[:8]))
        return io.NodeOutput(mean, scores)


class _Middle:
    """Colours in the middles of an image's boxes: half their width and height."""

    def __init__(self, image: torch.Tensor) -> None:
        self._image = image

    def share(self, box: Box, colour: str) -> float:
        from ..rewards import named_colours

        top, left = box.top + box.height / 4, box.left + box.width / 4
        rows = slice(max(0, round(top)), max(0, round(top + box.height / 2)) + 1)
        columns = slice(max(0, round(left)), max(0, round(left + box.width / 2)) + 1)
        return named_colours.share(self._image[rows, columns, :3], colour)


def _by_image(boxes: Any, images: int) -> list[Sequence[dict[str, Any]]]:
    """One list of boxes for each image, from the three forms that ComfyUI's nodes pass on."""
    if isinstance(boxes, dict):
        boxes = [[boxes]]
    elif isinstance(boxes, list) and boxes and isinstance(boxes[0], dict):
        boxes = [boxes]
    if not isinstance(boxes, list) or not all(isinstance(its, list | tuple) for its in boxes):
        raise ValueError(
            f"The boxes are {type(boxes).__name__} and no detections; connect the bboxes of a "
            "detector, a list for each image."
        )
    if len(boxes) != images:
        raise ValueError(
            f"There are {images} images and boxes of {len(boxes)}; connect the images that the "
            "detector looked at."
        )
    return boxes


def _box(entry: dict[str, Any], label: str) -> Box:
    from ..rewards.compositional import Box

    try:
        left, top, width, height = (float(entry[key]) for key in ("x", "y", "width", "height"))
        named, sure = str(entry.get("label") or label), float(entry.get("score", 1.0))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"A box is {str(entry)[:80]!r}; a detector gives x, y, width, height, label and score."
        ) from error
    if not named:
        raise ValueError(
            "The boxes have no names; write into 'label' what the detector looked for."
        )
    return Box(named, sure, left, top, width, height)


def _demands_input() -> io.Input:
    return io.Combo.Input(
        "demands",
        options=[IN_PROMPT, *input_files((".json",))],
        tooltip="What a prompt asks for: read from its words (two red cubes left of a ball), or "
        "written out in a .json file in ComfyUI's input folder.",
    )


def _read(name: str) -> dict[str, Demand]:
    from ..rewards.demands import read_demands

    return {} if name == IN_PROMPT else read_demands(folders.input_path(name))


def _of_file(name: str) -> str:
    """Names a file by what is in it: another one gives other answers."""
    if name == IN_PROMPT:
        return ""
    content = folders.input_path(name).read_bytes()
    return f" of {name} ({blake2b(content, digest_size=4).hexdigest()})"


def _check_demands(name: str | None) -> bool | str:
    try:
        _read(name or IN_PROMPT)
    except ValueError as error:
        return str(error)
    return True


def _changed(name: str | None) -> float:
    if name is None or name == IN_PROMPT:
        return 0.0
    path = folders.input_path(name)
    return path.stat().st_mtime if path.is_file() else -1.0
