"""Which layers to skip in Skip Layer Guidance, suggested by an analysis of whole blocks.

Skip Layer Guidance, ComfyUI's SkipLayerGuidanceDiT, moves a prediction away from the one that the
model makes without some of its blocks. That points the right way where the model without them is
worse, but still draws the picture: blocks without which the reward falls by more than its band, and
not as far as without the model's vital ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .analysis import Analysis

MOST = 3  # blocks: the node's own default skips three
MOST_OF_WORST = 0.5  # of the loss without the most vital block

# What SkipLayerGuidanceDiT calls a family's kinds of blocks: tests/host/test_skip_layers.py asks
# ComfyUI's classes. Families that are not here cannot skip blocks that way.
_TWO_KINDS = {"double": "double", "single": "single"}
_BLOCKS = {"block": "double"}
LAYERS_OF = {
    "auraflow": _TWO_KINDS,
    "chroma": _TWO_KINDS,
    "flux": _TWO_KINDS,
    "flux2": _TWO_KINDS,
    "hunyuan-dit": _BLOCKS,
    "hunyuan-image": _TWO_KINDS,
    "hunyuan-video": _TWO_KINDS,
    "hunyuan-video-1.5": _TWO_KINDS,
    "joyimage": {"double": "double"},
    "kandinsky5": {"visual": "double"},
    "lens": _BLOCKS,
    "longcat-image": _TWO_KINDS,
    "ltx-video": _BLOCKS,
    "mage-flow": _BLOCKS,
    "mochi": {"joint": "double"},
    "ovis-image": _TWO_KINDS,
    "qwen-image": _BLOCKS,
    "sd3": {"joint": "double"},
    "wan": _BLOCKS,
}


@dataclass(frozen=True)
class Suggestion:
    """Layers for SkipLayerGuidanceDiT's two inputs; none where `reason` says why."""

    double: tuple[int, ...]
    single: tuple[int, ...]
    reason: str  # how they were chosen, a sentence or two
    names: tuple[str, ...] = ()  # of the blocks, as coefficients are named

    @property
    def double_layers(self) -> str:
        """As the node's input wants it: "3, 7"."""
        return ", ".join(map(str, self.double))

    @property
    def single_layers(self) -> str:
        return ", ".join(map(str, self.single))


def suggest_layers(
    analysis: Analysis, family: str, granularity: str, names: Sequence[str]
) -> Suggestion:
    """The layers to skip, from what each block's absence costs; `names` are all the model's.

    Of the blocks whose absence has its whole band below 0, but at most half of the worst block's
    loss, those with the largest losses, three at most.
    """
    kinds = LAYERS_OF.get(family)
    if kinds is None:
        return _none(f"ComfyUI's Skip Layer Guidance cannot skip blocks of {family}.")
    if granularity != "block" or 0.0 not in analysis.scales:
        return _none("Layers to skip are suggested from whole blocks at scale 0: add these.")
    if not set(names) <= set(analysis.names):
        return _none(
            "Layers to skip are suggested from all blocks, since they are compared with the worst "
            "of them: empty `only`."
        )
    at = analysis.scales.index(0.0)
    worst = -float(analysis.gain[:, at].min())
    found = []
    for row, name in enumerate(analysis.names):
        kind, index = name.split(".")
        loss = -float(analysis.gain[row, at])
        falls = bool(analysis.worse[row, at])
        if kind in kinds and falls and loss <= MOST_OF_WORST * worst:
            found.append((loss, kinds[kind], int(index), name))
    if not found:
        return _none(
            "There is none to suggest: no block without which the reward falls by more than its "
            "band and at most half as far as without the worst. More prompts narrow the bands."
        )
    chosen = sorted(found, reverse=True)[:MOST]
    return Suggestion(
        double=tuple(sorted(index for _, kind, index, _ in chosen if kind == "double")),
        single=tuple(sorted(index for _, kind, index, _ in chosen if kind == "single")),
        reason="Without each of them the reward falls by more than its 95 % band, but at most half "
        "as far as without the worst block. A suggestion: no picture was drawn with them yet.",
        names=tuple(name for *_, name in chosen),
    )


def _none(reason: str) -> Suggestion:
    return Suggestion((), (), reason)
