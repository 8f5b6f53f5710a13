"""Another pack's nodes in the servers of the background tests: a reward that can go wrong.

ComfyUI loads this file from custom_nodes; the tests copy it there.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import folder_paths
import torch


class Card:
    """What a reward says of itself."""

    meaning = "how light an image is, those of red prompts less"
    typical = (0.0, 1.0)
    bounds = (0.0, 1.0)
    licence = "Apache-2.0"
    memory = 0
    size = None


class Lightness:
    """Likes light pictures; input/trouble.json says what it suffers from.

    {"at": n, "kind": k}: from the n-th call on that it gets while the file says so it fails. "gone"
    raises, "nan" scores nothing, "memory" is out of memory for more than `rows` images. "seconds"
    is how long each call takes. Each call leaves a line in output/calls.txt.
    """

    name = "lightness"
    differentiable = True
    card = Card()

    def __init__(self) -> None:
        self.trouble: dict[str, Any] = {}
        self.calls = 0

    def score(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        trouble = _trouble()
        if trouble != self.trouble:
            self.trouble, self.calls = trouble, 0
        self.calls += 1
        _note("calls.txt", str(len(images)))
        time.sleep(trouble.get("seconds", 0.0))
        scores = images.mean(dim=(1, 2, 3)) * torch.tensor(
            [0.5 if "red" in prompt else 1.0 for prompt in prompts]
        )
        if self.calls < trouble.get("at", float("inf")):
            return scores
        if trouble["kind"] == "gone":
            raise RuntimeError("The reward's server has gone away.")
        if trouble["kind"] == "memory" and len(images) > trouble["rows"]:
            raise torch.OutOfMemoryError("No memory for so many images.")
        return scores * float("nan") if trouble["kind"] == "nan" else scores


class CalibriTestReward:
    """Gives the reward."""

    RETURN_TYPES = ("CALIBRI_REWARD",)
    FUNCTION = "make"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    def make(self) -> tuple[Lightness]:
        return (Lightness(),)


class CalibriTestCounter:
    """A node with a hidden UNIQUE_ID and state of its own: says how often it was executed."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "count"
    CATEGORY = "tests"

    def __init__(self) -> None:
        self.executed = 0

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",)}, "hidden": {"unique_id": "UNIQUE_ID"}}

    def count(self, model: Any, unique_id: str) -> tuple[Any]:
        self.executed += 1
        _note("counted.txt", f"{unique_id} {self.executed}")
        return (model,)


class CalibriTestSlowModel:
    """A model whose every step takes "step_seconds" of input/trouble.json longer."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "slow_down"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",)}}

    def slow_down(self, model: Any) -> tuple[Any]:
        def call(function: Any, options: dict[str, Any]) -> torch.Tensor:
            time.sleep(_trouble().get("step_seconds", 0.0))
            return function(options["input"], options["timestep"], **options["c"])

        slow = model.clone()
        slow.set_model_unet_function_wrapper(call)
        return (slow,)


def _note(file: str, line: str) -> None:
    with (Path(folder_paths.get_output_directory()) / file).open("a") as opened:
        opened.write(line + "\n")


def _trouble() -> dict[str, Any]:
    file = Path(folder_paths.get_input_directory()) / "trouble.json"
    try:
        found: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    return found


NODE_CLASS_MAPPINGS = {
    "CalibriTestCounter": CalibriTestCounter,
    "CalibriTestReward": CalibriTestReward,
    "CalibriTestSlowModel": CalibriTestSlowModel,
}
