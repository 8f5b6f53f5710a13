"""AuraFlow: double blocks with an adaLN linear per stream, then single blocks with one for both.

A block adds its attention to the stream only for its MLP to read; what it passes on is the stream
that came in plus the MLP's output. The attention's gate scales it as everywhere else.
"""

from __future__ import annotations

from .entry import GATES_OF_SIX, NORMS_OF_SIX, BlockKind, Family, Modulation

AURAFLOW = Family(
    name="auraflow",
    classes=("MMDiT",),
    needs=("init_x_linear", "cond_seq_linear"),
    kinds=(
        BlockKind(
            name="double",
            container="double_layers",
            branches=(
                Modulation(
                    "modX.1",
                    "image",
                    {6: GATES_OF_SIX},
                    width_of="attn.w2o",
                    norms={6: NORMS_OF_SIX},
                ),
                Modulation(
                    "modC.1",
                    "text",
                    {6: GATES_OF_SIX},
                    width_of="attn.w1o",
                    norms={6: NORMS_OF_SIX},
                ),
            ),
        ),
        BlockKind(
            name="single",
            container="single_layers",
            branches=(
                Modulation(
                    "modCX.1",
                    "joint",
                    {6: GATES_OF_SIX},
                    width_of="attn.w1o",
                    norms={6: NORMS_OF_SIX},
                ),
            ),
        ),
    ),
)
