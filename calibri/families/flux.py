"""FLUX.1: double blocks with a modulation per stream, then single blocks with one for both."""

from __future__ import annotations

from .entry import GATES_OF_SIX, NORMS_OF_SIX, BlockKind, Family, Modulation

FLUX = Family(
    name="flux",
    classes=("Flux",),
    # LongCat-Image and Ovis use ComfyUI's Flux class too, but without pooled text.
    needs=("vector_in.in_layer",),
    kinds=(
        BlockKind(
            name="double",
            container="double_blocks",
            branches=(
                Modulation("img_mod.lin", "image", {6: GATES_OF_SIX}, norms={6: NORMS_OF_SIX}),
                Modulation("txt_mod.lin", "text", {6: GATES_OF_SIX}, norms={6: NORMS_OF_SIX}),
            ),
        ),
        BlockKind(
            name="single",
            container="single_blocks",
            branches=(
                Modulation(
                    "modulation.lin",
                    "joint",
                    {3: ((2, "fused"),)},
                    norms={3: ((0, "fused", "shift"), (1, "fused", "scale"))},
                ),
            ),
        ),
    ),
)
