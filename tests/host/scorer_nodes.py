"""Nodes that score images in the many ways ComfyUI's nodes may: what test_nodes_workflow_reward
makes rewards of."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io
from comfy_execution.graph import ExecutionBlocker
from comfy_execution.graph_utils import GraphBuilder

CALLS: list[str] = []


class V1:
    """A stock node; what follows differs from it in one thing each."""

    CATEGORY, FUNCTION = "test", "run"
    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("FLOAT",)
    TYPES: ClassVar[dict[str, tuple[Any, ...]]] = {"image": ("IMAGE",)}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": cls.TYPES}

    def run(self, image: torch.Tensor) -> tuple[Any, ...]:
        CALLS.append(f"{type(self).__name__} {len(image)}")
        return (float(image.mean()),)


class Mean(V1):
    pass


class Loader(V1):
    """Counts its calls, and always claims to have changed."""

    RETURN_TYPES = ("FACTOR",)
    TYPES: ClassVar[dict[str, Any]] = {"factor": ("FLOAT", {})}

    @classmethod
    def IS_CHANGED(cls, **_: object) -> float:
        return float("nan")

    def run(self, factor: float) -> tuple[float]:  # type: ignore[override]
        CALLS.append("Loader")
        return (factor,)


class Scorer(V1):
    """Needs a loaded model and the prompt; keeps a count in itself."""

    TYPES: ClassVar[dict[str, Any]] = {
        "image": ("IMAGE",),
        "model": ("FACTOR",),
        "prompt": ("STRING", {}),
    }

    def __init__(self) -> None:
        CALLS.append("Scorer made")

    def run(  # type: ignore[override]
        self, image: torch.Tensor, model: float, prompt: str
    ) -> tuple[float]:
        comfy.utils.ProgressBar(3).update(1)
        return (float(image.mean()) * model + len(prompt),)


class Text(V1):
    RETURN_TYPES = ("STRING",)

    def run(self, image: torch.Tensor) -> tuple[str]:
        return (f" {float(image.mean()):.3f} ",)


class OneInAList(V1):
    def run(self, image: torch.Tensor) -> tuple[list[float]]:
        return ([float(image.mean())],)


class ListOfOne(V1):
    OUTPUT_IS_LIST = (True,)

    def run(self, image: torch.Tensor) -> tuple[list[float]]:
        return ([float(image.mean())],)


class AllAtOnce(V1):
    """Takes ComfyUI's lists whole and gives one number for all."""

    INPUT_IS_LIST = True

    def run(self, image: list[torch.Tensor]) -> tuple[float]:  # type: ignore[override]
        CALLS.append(f"AllAtOnce {len(image)}")
        return (float(torch.cat(image).mean()),)


class Waits(V1):
    async def run(self, image: torch.Tensor) -> tuple[float]:  # type: ignore[override]
        await asyncio.sleep(0.001)
        return (float(image.mean()),)


class Expands(V1):
    def run(self, image: torch.Tensor) -> dict[str, Any]:  # type: ignore[override]
        graph = GraphBuilder()
        mean = graph.node("CalibriTestMean", image=image)
        return {"result": (mean.out(0),), "expand": graph.finalize()}


class Lazy(V1):
    """Chooses one of two inputs; the other one is never made."""

    TYPES: ClassVar[dict[str, Any]] = {
        "image": ("FLOAT", {"lazy": True}),
        "other": ("FLOAT", {"lazy": True}),
    }

    def check_lazy_status(self, image: float | None, other: float | None) -> list[str]:
        return ["image"] if image is None else []

    def run(  # type: ignore[override]
        self, image: float, other: float | None = None
    ) -> tuple[float]:
        return (image,)


class Fails(V1):
    def run(self, image: torch.Tensor) -> tuple[float]:
        raise RuntimeError("the scorer's own complaint")


class Pair(V1):
    RETURN_TYPES = ("STRING",)

    def run(self, image: torch.Tensor) -> tuple[str]:
        return ("0.1, 0.9",)


class Infinite(V1):
    def run(self, image: torch.Tensor) -> tuple[float]:
        return (float("inf"),)


class Blocks(V1):
    def run(self, image: torch.Tensor) -> tuple[Any]:
        return (ExecutionBlocker(None),)


class Cancelled(V1):
    def run(self, image: torch.Tensor) -> tuple[float]:
        raise comfy.model_management.InterruptProcessingException


class MemoryIsFull(V1):
    def run(self, image: torch.Tensor) -> tuple[float]:
        raise comfy.model_management.OOM_EXCEPTION("out of memory")


class V3Mean(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriTestV3Mean",
            inputs=[io.Image.Input("image")],
            outputs=[io.Float.Output()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, image: torch.Tensor) -> io.NodeOutput:
        assert cls.hidden.unique_id is not None
        return io.NodeOutput(float(image.mean()))


class FindsWhite(V1):
    """A detector of white rectangles, as ComfyUI's answer: boxes for each image."""

    RETURN_TYPES = ("BOUNDING_BOX",)

    def run(self, image: torch.Tensor) -> tuple[Any, ...]:
        return ([_white(picture) for picture in image],)


def _white(picture: torch.Tensor) -> list[dict[str, Any]]:
    """The left and the right half's white rectangle, where they have one."""
    found = []
    half = picture.shape[1] // 2
    for start in (0, half):
        rows, columns = (picture[:, start : start + half].mean(-1) > 0.9).nonzero(as_tuple=True)
        if len(rows):
            top, left = int(rows.min()), int(columns.min())
            height, width = int(rows.max()) + 1 - top, int(columns.max()) + 1 - left
            place = {"x": start + left, "y": top, "width": width, "height": height}
            found.append({**place, "label": "square", "score": 0.8})
    return found
