"""CogVideoX: text and video in one sequence, a norm with six chunks before each of two branches.

A norm's linear holds the gates of both streams: shift, scale, gate for the video, then for the
text. It is fed by the time embedding, which is narrower than the blocks.
"""

from __future__ import annotations

from .entry import BlockKind, Family, Modulation

COGVIDEOX = Family(
    name="cogvideox",
    classes=("CogVideoXTransformer3DModel",),
    needs=("patch_embed.text_proj",),
    kinds=(
        BlockKind(
            name="block",
            container="blocks",
            branches=(
                Modulation(
                    "norm1.linear",
                    "image",
                    {6: ((2, "attention"),)},
                    norms={6: ((0, "attention", "shift"), (1, "attention", "scale"))},
                    width_of="attn_out",
                ),
                Modulation(
                    "norm2.linear",
                    "image",
                    {6: ((2, "mlp"),)},
                    norms={6: ((0, "mlp", "shift"), (1, "mlp", "scale"))},
                    width_of="ff_out",
                ),
                Modulation(
                    "norm1.linear",
                    "text",
                    {6: ((5, "attention"),)},
                    norms={6: ((3, "attention", "shift"), (4, "attention", "scale"))},
                    width_of="attn_out",
                ),
                Modulation(
                    "norm2.linear",
                    "text",
                    {6: ((5, "mlp"),)},
                    norms={6: ((3, "mlp", "shift"), (4, "mlp", "scale"))},
                    width_of="ff_out",
                ),
            ),
            unread_in_last=("text",),
        ),
    ),
)
