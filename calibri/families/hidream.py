"""HiDream-I1 and E1: double blocks with one adaLN linear for both streams, then single blocks.

Every block is handed tokens of another layer of the language model, so no text is unread.
"""

from __future__ import annotations

from .entry import GATES_OF_SIX, NORMS_OF_SIX, BlockKind, Family, Modulation

LINEAR = "block.adaLN_modulation.1"

HIDREAM = Family(
    name="hidream",
    classes=("HiDreamImageTransformer2DModel",),
    needs=("caption_projection.0.linear",),
    kinds=(
        BlockKind(
            name="double",
            container="double_stream_blocks",
            branches=(
                Modulation(LINEAR, "image", {12: GATES_OF_SIX}, norms={12: NORMS_OF_SIX}),
                Modulation(
                    LINEAR,
                    "text",
                    {12: ((8, "attention"), (11, "mlp"))},
                    norms={
                        12: tuple((chunk + 6, branch, role) for chunk, branch, role in NORMS_OF_SIX)
                    },
                ),
            ),
        ),
        BlockKind(
            name="single",
            container="single_stream_blocks",
            branches=(Modulation(LINEAR, "joint", {6: GATES_OF_SIX}, norms={6: NORMS_OF_SIX}),),
        ),
    ),
)
