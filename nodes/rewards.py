"""Rewards as nodes. Nothing of a reward is in memory before it scores its first images."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from comfy_api.latest import io

from ..rewards import catalogue
from . import folders, reward_files, sockets
from .messages import show_on_node

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..rewards.protocol import Card, NetworkReward
    from .managed_reward import ManagedReward

_DEMO_KINDS = ("learned", "checker")


class CalibriDemoReward(io.ComfyNode):
    """The learned reward that comes with the demo model, or the checker that judges it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriDemoReward",
            display_name="Demo Reward",
            category="Calibri/demo",
            **sockets.search_aliases("demo scorer", "checker"),
            description="Scores how well a 64 × 64 picture shows its prompt, by the small learned "
            "reward of Calibri's demo model. It reads prompts in the demo's words only.",
            inputs=[
                io.Combo.Input(
                    "kind",
                    options=list(_DEMO_KINDS),
                    default=_DEMO_KINDS[0],
                    optional=True,
                    tooltip="learned: what to search with. checker: the share of the prompt's "
                    "facts that the picture shows, measured by rules; what to judge it with.",
                )
            ],
            outputs=[sockets.Reward.Output(display_name="reward")],
        )

    @classmethod
    def execute(cls, kind: str = _DEMO_KINDS[0]) -> io.NodeOutput:
        from ..demo.reward import DemoReward
        from ..rewards.weights_mark import weights_mark
        from .managed_reward import ManagedReward

        if kind == "checker":
            from ..demo.checker_reward import CheckerReward

            return io.NodeOutput(CheckerReward())
        if not folders.DEMO_REWARD.is_file():
            raise ValueError(
                f"The demo's reward is not at {folders.DEMO_REWARD}; restore it with "
                "'git checkout demo/weights' in the pack's folder."
            )
        return io.NodeOutput(
            ManagedReward(
                DemoReward.name,
                DemoReward.card,
                lambda: DemoReward.load(folders.DEMO_REWARD),
                rows=None,
                weights=weights_mark(folders.DEMO_REWARD),
            )
        )


class CalibriLoadReward(io.ComfyNode):
    """A published reward model from files in models/reward."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        with_clips = reward_files.listed(reward_files.WITH_IMAGE_TOWER)
        return io.Schema(
            node_id="CalibriLoadReward",
            display_name="Load Reward",
            category="Calibri/rewards",
            **sockets.search_aliases(
                "ImageReward",
                "PickScore",
                "HPSv2",
                "CLIPScore",
                "aesthetic",
                "reward model",
                "scorer",
            ),
            description="A published model that scores images: for Calibrate, Score Images and "
            "Pick Best. Its files belong into models/reward; nothing is downloaded. It loads when "
            "it scores its first image.",
            inputs=[
                io.Combo.Input(
                    "reward",
                    options=list(catalogue.KINDS),
                    tooltip="ImageReward, PickScore, HPSv2.1 and HPSv2: what people prefer for a "
                    "prompt. CLIPScore: how well image and prompt fit. LAION aesthetic: how "
                    "pleasing an image is, without its prompt.",
                ),
                io.Combo.Input(
                    "file",
                    options=[reward_files.AUTO, *with_clips],
                    tooltip="auto: the published file, by its name, in models/reward. CLIPScore "
                    "takes any whole CLIP, also from models/text_encoders.",
                ),
                sockets.advanced(
                    io.Combo.Input(
                        "clip",
                        options=[reward_files.AUTO, *with_clips],
                        tooltip="For LAION aesthetic: OpenAI's ViT-L/14, whole or its image tower, "
                        "from models/reward, clip_vision or text_encoders.",
                    )
                ),
            ],
            outputs=[sockets.Reward.Output(display_name="reward")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls, reward: str | None, file: str | None, clip: str | None = reward_files.AUTO
    ) -> bool | str:
        if reward is None or file is None or clip is None:  # linked; read when they are known
            return True
        try:
            _published(reward, file, clip)
        except (ValueError, OSError) as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(
        cls, reward: str | None, file: str | None, clip: str | None = reward_files.AUTO
    ) -> str:
        if reward is None or file is None or clip is None:  # linked
            return ""
        # Another file under the same name is another reward.
        try:
            return _published(reward, file, clip).weights
        except (ValueError, OSError):  # `execute` says what is wrong
            return ""

    @classmethod
    def execute(cls, reward: str, file: str, clip: str = reward_files.AUTO) -> io.NodeOutput:
        made = _published(reward, file, clip)
        card = made.card
        show_on_node(
            cls.hidden,
            f"{made.name}: {card.meaning}. Higher is better, {card.range}. "
            f"Licence: {card.licence}. {card.memory / 1e9:.1f} GB.",
        )
        return io.NodeOutput(made)


def _published(kind: str, file: str, clip: str) -> ManagedReward:
    """The reward `kind` of the files of those names; ValueError where one is missing or broken."""
    from ..rewards.aesthetic import Aesthetic
    from ..rewards.clip_rewards import CLIPScore, HPSv2, PickScore
    from ..rewards.imagereward import ImageReward
    from ..rewards.weights_file import check_whole
    from ..rewards.weights_mark import weights_mark
    from .managed_reward import ManagedReward

    if kind not in catalogue.KINDS:
        known = ", ".join(catalogue.KINDS)
        raise ValueError(f"There is no reward {kind!r}; choose one of {known}.")
    entry = catalogue.KINDS[kind]
    others = reward_files.WITH_CLIP if entry is catalogue.CLIP_SCORE else ()
    path = reward_files.chosen(entry, file, others)
    check_whole(kind, path)
    known = entry.fits(f"{path.parent.name}/{path.name}")
    name = kind if known else f"{kind} ({catalogue.called(path)})"

    def made(
        name: str, card: Card, load: Callable[[], NetworkReward], *beside: Path
    ) -> ManagedReward:
        return ManagedReward(name, card, load, weights=weights_mark(path, *beside))

    if entry is catalogue.IMAGE_REWARD:
        words = reward_files.bert_vocabulary(path)
        return made(name, ImageReward.card, lambda: ImageReward.load(path, words), words)
    if entry is catalogue.AESTHETIC:
        tower = reward_files.chosen(catalogue.AESTHETIC_CLIP, clip, reward_files.WITH_IMAGE_TOWER)
        check_whole(kind, tower)
        # Scores through different towers differ, and so do the names.
        name = f"{name} on {catalogue.called(tower)}"
        return made(name, Aesthetic.card, lambda: Aesthetic.load(path, tower), tower)
    words = reward_files.clip_vocabulary()
    if entry is catalogue.PICK_SCORE:
        return made(name, PickScore.card, lambda: PickScore.load(path, words))
    if entry is catalogue.CLIP_SCORE:
        card = dataclasses.replace(CLIPScore.describe(), memory=path.stat().st_size)
        return made(CLIPScore.named(path), card, lambda: CLIPScore.load(path, words))
    return made(name, HPSv2.describe(), lambda: HPSv2.load(kind, path, words))
