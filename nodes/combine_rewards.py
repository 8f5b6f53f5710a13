"""Combine Rewards and Reward Floor: `rewards/compose.py` as nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from . import sockets
from .messages import show_on_node
from .scoring import one_each

if TYPE_CHECKING:
    import torch

    from ..rewards.compose import Spread
    from ..rewards.protocol import Reward

MOST = 4  # rewards in one node; sums can be summed again


class CalibriCombineRewards(io.ComfyNode):
    """A weighted sum of rewards, each in its own spread."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        parts: list[io.Input] = []
        for i in range(1, MOST + 1):
            parts += [
                sockets.Reward.Input(f"reward_{i}", optional=i > 1, tooltip="A part of the sum."),
                io.Float.Input(
                    f"weight_{i}",
                    default=1.0,
                    min=-100.0,
                    max=100.0,
                    step=0.05,
                    tooltip="How much it counts, in spreads; below 0 it is avoided.",
                ),
            ]
        return io.Schema(
            node_id="CalibriCombineRewards",
            display_name="Combine Rewards",
            category="Calibri/rewards",
            **sockets.search_aliases(
                "sum rewards", "weighted reward", "several rewards", "multi objective"
            ),
            description="A weighted sum of rewards. Their scales differ by orders of magnitude, so "
            "each counts in its own spread on images of the plain model: 0 is an average image.",
            inputs=[*_plain_images(), *parts],
            outputs=[sockets.Reward.Output(display_name="reward")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        images: torch.Tensor,
        prompt: str,
        prompts: tuple[str, ...] | None = None,
        **parts: Any,
    ) -> io.NodeOutput:
        from ..rewards.compose import Part, WeightedSum

        summands = []
        for i in range(1, MOST + 1):
            reward, weight = parts.get(f"reward_{i}"), parts.get(f"weight_{i}", 1.0)
            if reward is not None and weight:
                spread = _spread(reward, images, prompt, prompts)
                summands.append(Part(reward, weight, spread))
        total = WeightedSum(summands)
        show_on_node(cls.hidden, total.name)
        return io.NodeOutput(total)


class CalibriRewardFloor(io.ComfyNode):
    """A reward that pays a penalty where another one falls."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriRewardFloor",
            display_name="Reward Floor",
            category="Calibri/rewards",
            **sockets.search_aliases("constraint", "guard reward", "minimum reward", "penalty"),
            description="Raises one reward while another must not fall below the plain model's: "
            "images on which the guard scores less than there pay a penalty.",
            inputs=[
                *_plain_images(),
                sockets.Reward.Input("reward", tooltip="What is to be raised."),
                sockets.Reward.Input("guard", tooltip="What must not fall."),
                io.Float.Input(
                    "strength",
                    default=3.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="What an image pays that is one of the guard's spreads too low, in "
                    "spreads of the reward.",
                ),
                io.Float.Input(
                    "tolerance",
                    default=0.0,
                    min=-10.0,
                    max=10.0,
                    step=0.1,
                    tooltip="How far below the plain model's mean the guard may fall for free, in "
                    "its spreads.",
                ),
            ],
            outputs=[sockets.Reward.Output(display_name="reward")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        images: torch.Tensor,
        prompt: str,
        reward: Reward,
        guard: Reward,
        strength: float,
        tolerance: float,
        prompts: tuple[str, ...] | None = None,
    ) -> io.NodeOutput:
        from ..rewards.compose import Floor

        spread = _spread(reward, images, prompt, prompts)
        guard_spread = _spread(guard, images, prompt, prompts)
        guarded = Floor(reward, spread, guard, guard_spread, strength, tolerance)
        show_on_node(cls.hidden, guarded.name)
        return io.NodeOutput(guarded)


def _plain_images() -> list[io.Input]:
    return [
        io.Image.Input(
            "images",
            tooltip="A batch of the plain, uncalibrated model, 16 or more: they set the scales.",
        ),
        io.String.Input(
            "prompt", default="", multiline=True, tooltip="Their prompt, the same for all."
        ),
        sockets.Prompts.Input(
            "prompts",
            optional=True,
            tooltip="One prompt for each image, from a Prompt Set; used instead of the text.",
        ),
    ]


def _spread(
    reward: Reward, images: torch.Tensor, prompt: str, prompts: tuple[str, ...] | None
) -> Spread:
    from ..rewards.compose import Spread

    texts = one_each(images, prompt, prompts)
    return Spread.measure(reward, images[..., :3].float(), texts)
