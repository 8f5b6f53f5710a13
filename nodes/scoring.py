"""Score Images and Pick Best: rewards on their own, without a calibration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from comfy_api.latest import io

from . import sockets
from .messages import show_on_node

if TYPE_CHECKING:
    import torch

    from ..rewards.protocol import Reward

SHOWN = 32  # scores that fit under a node


class CalibriScoreImages(io.ComfyNode):
    """A reward's scores of a batch of images."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriScoreImages",
            display_name="Score Images",
            category="Calibri/rewards",
            **sockets.search_aliases(
                "rate images", "image quality", "aesthetic score", "evaluate images"
            ),
            description="Scores images with a reward and shows the scores. Higher is better.",
            inputs=[io.Image.Input("images", tooltip="The images to score."), *prompted_inputs()],
            outputs=[
                io.Float.Output(display_name="mean"),
                io.Float.Output(display_name="scores", is_output_list=True),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        images: torch.Tensor,
        reward: Reward,
        prompt: str,
        prompts: tuple[str, ...] | None = None,
    ) -> io.NodeOutput:
        scores = score(images, reward, prompt, prompts)
        mean = sum(scores) / len(scores)
        text = f"{reward.name}: mean {mean:.4f} of {len(scores)}\n" + _listed(enumerate(scores))
        show_on_node(cls.hidden, text)
        return io.NodeOutput(mean, scores, ui={"text": (text,)})


class CalibriPickBest(io.ComfyNode):
    """The images of a batch that a reward scores highest."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriPickBest",
            display_name="Pick Best",
            category="Calibri/rewards",
            **sockets.search_aliases("best of n", "choose images", "filter images", "rank images"),
            description="Keeps the images of a batch that a reward scores highest, best first.",
            inputs=[
                io.Image.Input("images", tooltip="A batch to choose from."),
                *prompted_inputs(),
                io.Int.Input(
                    "count",
                    default=1,
                    min=1,
                    max=4096,
                    tooltip="How many to keep; a smaller batch is kept whole, in order.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="best"),
                io.Float.Output(display_name="score", tooltip="Of the best image."),
                io.Int.Output(display_name="index", tooltip="Its place in the batch, from 0."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        images: torch.Tensor,
        reward: Reward,
        prompt: str,
        count: int,
        prompts: tuple[str, ...] | None = None,
    ) -> io.NodeOutput:
        scores = score(images, reward, prompt, prompts)
        order = sorted(range(len(scores)), key=lambda i: -scores[i])[:count]
        text = f"{reward.name}, best first\n" + _listed((i, scores[i]) for i in order)
        show_on_node(cls.hidden, text)
        return io.NodeOutput(images[order], scores[order[0]], order[0])


def prompted_inputs() -> list[io.Input]:
    """A reward, and the prompts that its images were made for."""
    return [
        sockets.Reward.Input("reward", tooltip="What scores, from a Load Reward."),
        io.String.Input(
            "prompt",
            default="",
            multiline=True,
            tooltip="What the images should show: one prompt for all of them.",
        ),
        sockets.Prompts.Input(
            "prompts",
            optional=True,
            tooltip="One prompt for each image, from a Prompt Set; used instead of the text.",
        ),
    ]


def score(
    images: torch.Tensor, reward: Reward, prompt: str, prompts: tuple[str, ...] | None
) -> list[float]:
    """`reward`'s score of each image [B, H, W, 3 or 4]; ValueError names what does not fit."""
    from ..rewards.batch import check_batch, check_pixels, check_scores

    texts = one_each(images, prompt, prompts)
    seen = images[..., :3].float()  # an alpha channel is no picture
    check_pixels(reward, reward.name)
    check_batch(reward.name, seen, texts)
    scores = check_scores(reward.name, reward.score(seen, texts), len(seen))
    return [float(value) for value in scores.detach().cpu()]


def one_each(images: torch.Tensor, prompt: str, prompts: tuple[str, ...] | None) -> list[str]:
    """A prompt for each image; ValueError where there are neither one nor as many as images."""
    if len(images) == 0:
        raise ValueError("The batch is empty; connect at least one image.")
    if prompts is None:
        return [prompt] * len(images)
    if len(prompts) not in (1, len(images)):
        raise ValueError(
            f"There are {len(images)} images and {len(prompts)} prompts; connect one prompt, or "
            "one for each image in the batch's order."
        )
    return list(prompts) * (len(images) if len(prompts) == 1 else 1)


def _listed(numbered: Iterable[tuple[int, float]]) -> str:
    lines = [f"{place}: {value:.4f}" for place, value in numbered]
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n".join(lines[:SHOWN] + more)
