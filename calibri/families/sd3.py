"""SD3 and SD3.5: joint blocks of an image and a text half, some with a second image attention."""

from __future__ import annotations

from .entry import (
    GATES_OF_NINE,
    GATES_OF_SIX,
    NORMS_OF_NINE,
    NORMS_OF_SIX,
    NORMS_OF_TWO,
    BlockKind,
    Family,
    Modulation,
)

SD3 = Family(
    name="sd3",
    classes=("MMDiT",),
    needs=("x_embedder.proj",),
    kinds=(
        BlockKind(
            name="joint",
            container="joint_blocks",
            branches=(
                Modulation(
                    "x_block.adaLN_modulation.1",
                    "image",
                    {6: GATES_OF_SIX, 9: GATES_OF_NINE},
                    norms={6: NORMS_OF_SIX, 9: NORMS_OF_NINE},
                ),
                # Two chunks, no gate: the last text block only feeds the attention ("pre-only").
                Modulation(
                    "context_block.adaLN_modulation.1",
                    "text",
                    {6: GATES_OF_SIX, 2: ()},
                    norms={6: NORMS_OF_SIX, 2: NORMS_OF_TWO},
                ),
            ),
        ),
    ),
)
