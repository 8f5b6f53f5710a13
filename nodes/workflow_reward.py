"""Reward Input and Reward from Workflow: any nodes that turn an image into a number, as a reward.

`subgraph.py` cuts the nodes between the two out of the prompt, `subgraph_execution.py` runs them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io

from ..rewards.batch import check_batch, check_scores
from ..rewards.protocol import Card
from . import sockets
from .messages import show_on_node
from .subgraph import ENTRANCE, SubGraph, cut_out

if TYPE_CHECKING:
    from .subgraph_execution import SubGraphRunner

NUMBERS = [io.Float, io.Int, io.String, io.Boolean, io.Custom("NUMBER")]


class CalibriRewardInput(io.ComfyNode):
    """Where the images of a Reward from Workflow come in."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=ENTRANCE,
            display_name="Reward Input",
            category="Calibri/rewards",
            **sockets.search_aliases("custom reward", "scorer input"),
            description="Stands for the image to score and its prompt, at the beginning of the "
            "nodes that end in a Reward from Workflow. The nodes run once for each image.",
            inputs=[
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="Only to try your nodes out: what they show for this image. Without "
                    "it they rest until a reward is asked for.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Only to try your nodes out: the prompt of that image.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image", is_output_list=True, tooltip="One image at a time."
                ),
                io.String.Output(display_name="prompt", is_output_list=True),
            ],
        )

    @classmethod
    def execute(
        cls, image: torch.Tensor | None = None, prompt: str | tuple[str, ...] = ""
    ) -> io.NodeOutput:
        if image is None:
            from comfy_execution.graph_utils import ExecutionBlocker

            # Silent: nodes that show something, such as a Preview Image, are left out.
            return io.NodeOutput(ExecutionBlocker(None), ExecutionBlocker(None))
        # A WorkflowReward gives a tuple: one prompt for each image.
        prompts = list(prompt) if isinstance(prompt, tuple) else [prompt] * len(image)
        return io.NodeOutput([image[i : i + 1] for i in range(len(image))], prompts)


class CalibriWorkflowReward(io.ComfyNode):
    """Makes a reward of the nodes that lead to its score."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriWorkflowReward",
            display_name="Reward from Workflow",
            category="Calibri/rewards",
            **sockets.search_aliases("custom reward", "scorer output", "own metric"),
            description="Makes a reward of your own nodes: those between a Reward Input and the "
            "score. They run when a reward is asked for, not before; larger scores are better.",
            inputs=[
                io.MultiType.Input(
                    "score",
                    NUMBERS,
                    lazy=True,
                    extra_dict={"rawLink": True},
                    tooltip="The number that your nodes give for an image.",
                ),
                io.String.Input(
                    "name",
                    default="my score",
                    tooltip="Names the reward in reports and presets. A mark of its nodes and "
                    "their settings is added.",
                ),
            ],
            outputs=[sockets.Reward.Output(display_name="reward")],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def execute(cls, score: object, name: str) -> io.NodeOutput:
        graph = cut_out(cls.hidden.dynprompt.get_node, score)
        reward = WorkflowReward(name, graph)
        changing = len(graph.nodes) - len(graph.held)
        show_on_node(
            cls.hidden,
            f"{reward.name}: {changing} nodes run for each image, {len(graph.held)} once.",
        )
        return io.NodeOutput(reward)


class WorkflowReward:
    """A `Reward` that runs a sub-graph; nothing of it runs before the first images come."""

    differentiable = False
    card = Card(
        meaning="what the workflow's own nodes measure",
        typical=(math.nan, math.nan),
        licence="that of the workflow's nodes and models",
        memory=0,
        size=None,
    )

    def __init__(self, name: str, graph: SubGraph) -> None:
        label = " ".join(name.split()) or "workflow"
        self.name = f"{label} (workflow {graph.digest()})"
        self._graph = graph
        self._runner: SubGraphRunner | None = None
        self._together = True

    def score(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Scores [B] of images [B, H, W, 3] in 0..1 for their prompts, on the CPU.

        Raises ValueError for a node that fails or gives no number.
        """
        check_batch(self.name, images, prompts)
        seen = images.detach().float().cpu()
        # Nodes that take whole lists give one number for all: then each image has a run of its own.
        if self._together:
            values = self._values(seen, prompts)
            self._together = len(values) == len(seen)
        if not self._together:
            values = []
            for row in range(len(seen)):
                one = self._values(seen[row : row + 1], prompts[row : row + 1])
                if len(one) != 1:
                    raise ValueError(
                        f"{self.name} gave {len(one)} numbers for one image; connect a score that "
                        "is one number for each image."
                    )
                values += one
        numbers = [self._number(value) for value in values]
        scores = torch.tensor(numbers, dtype=torch.float32)
        mend = "see what the connected nodes compute for these images"
        return check_scores(self.name, scores, len(seen), mend)

    def _values(self, images: torch.Tensor, prompts: Sequence[str]) -> list[Any]:
        from .subgraph_execution import SubGraphError, SubGraphRunner

        if self._runner is None:
            self._runner = SubGraphRunner(self._graph)
        try:
            return self._runner.run({"image": images, "prompt": tuple(prompts)})
        except SubGraphError as error:
            raise ValueError(f"{self.name}: {error}") from error

    def _number(self, value: Any) -> float:
        """A score as nodes give it: a number, one in a list or tensor, or written as text."""
        single = value
        while isinstance(single, list | tuple) and len(single) == 1:
            single = single[0]
        try:
            if torch.is_tensor(single):
                return float(single.item())
            if not isinstance(single, list | tuple | dict):
                return float(single)
        except (TypeError, ValueError, RuntimeError):
            pass
        shown = f"{str(value)[:60]!r}"
        raise ValueError(
            f"{self.name}: its node {self._graph.title(self._graph.score[0])} gave {shown} for an "
            "image; connect a score that is one number for each image."
        )
