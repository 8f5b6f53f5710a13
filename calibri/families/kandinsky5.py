"""Kandinsky 5, video and image: blocks for the text, then blocks for the picture.

The modulations are fed by the time embedding, which is narrower than the blocks.
"""

from __future__ import annotations

from .entry import GATES_OF_SIX, NORMS_OF_SIX, NORMS_OF_TWO, BlockKind, Family, Modulation

WIDTH = "self_attention.out_layer"

KANDINSKY_5 = Family(
    name="kandinsky5",
    classes=("Kandinsky5",),
    needs=("pooled_text_embeddings.in_layer",),
    kinds=(
        BlockKind(
            name="text",
            container="text_transformer_blocks",
            branches=(
                Modulation(
                    "text_modulation.out_layer",
                    "text",
                    {6: GATES_OF_SIX},
                    width_of=WIDTH,
                    norms={6: NORMS_OF_SIX},
                ),
            ),
        ),
        BlockKind(
            name="visual",
            container="visual_transformer_blocks",
            branches=(
                Modulation(
                    "visual_modulation.out_layer",
                    "image",
                    {9: ((2, "attention"), (5, "cross_attention"), (8, "mlp"))},
                    norms={
                        9: (
                            *NORMS_OF_TWO,
                            (3, "cross_attention", "shift"),
                            (4, "cross_attention", "scale"),
                            (6, "mlp", "shift"),
                            (7, "mlp", "scale"),
                        )
                    },
                    width_of=WIDTH,
                ),
            ),
        ),
    ),
)
