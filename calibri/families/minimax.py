"""MiniMax H3: video, audio and text tokens of one sample in one sequence.

A block's modulation has six chunks for each of the three modalities, one row per timestep that
occurs in the sequence. Given frames and references are rows of the same modalities, at timesteps of
their own. The token refiner runs before sampling, where no coefficient reaches it.
"""

from __future__ import annotations

from .entry import PACKED, BlockKind, Family, Modulation


def _modulation(stream: str, first: int) -> Modulation:
    """The gates of the modality whose six chunks begin at `first`."""
    gates = ((first + 2, "attention"), (first + 5, "mlp"))
    return Modulation(
        "adaln_proj.linear", stream, {18: gates}, width_of="attn.out_proj", rows=PACKED
    )


MINIMAX_H3 = Family(
    name="minimax-h3",
    classes=("MiniMaxH3Model",),
    needs=("video_patch_proj", "audio_patch_proj"),
    kinds=(
        BlockKind(
            name="block",
            container="blocks",
            branches=(_modulation("image", 0), _modulation("text", 6), _modulation("audio", 12)),
            unread_in_last=("text",),
        ),
    ),
)
