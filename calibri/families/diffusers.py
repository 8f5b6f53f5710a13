"""FLUX.1 and SD3 in diffusers' classes, under the coefficient names of ComfyUI's entries.

A preset fits both. diffusers' Qwen-Image has ComfyUI's class and module names and needs no entry of
its own.
"""

from __future__ import annotations

from .entry import (
    GATES_OF_NINE,
    GATES_OF_SIX,
    NORMS_OF_NINE,
    NORMS_OF_SIX,
    BlockKind,
    Family,
    Modulation,
)

FLUX_IN_DIFFUSERS = Family(
    name="flux",
    classes=("FluxTransformer2DModel",),
    needs=("time_text_embed.text_embedder",),
    kinds=(
        BlockKind(
            name="double",
            container="transformer_blocks",
            branches=(
                Modulation("norm1.linear", "image", {6: GATES_OF_SIX}, norms={6: NORMS_OF_SIX}),
                Modulation(
                    "norm1_context.linear", "text", {6: GATES_OF_SIX}, norms={6: NORMS_OF_SIX}
                ),
            ),
        ),
        BlockKind(
            name="single",
            container="single_transformer_blocks",
            branches=(
                Modulation(
                    "norm.linear",
                    "joint",
                    {3: ((2, "fused"),)},
                    norms={3: ((0, "fused", "shift"), (1, "fused", "scale"))},
                ),
            ),
        ),
    ),
)

SD3_IN_DIFFUSERS = Family(
    name="sd3",
    classes=("SD3Transformer2DModel",),
    needs=("pos_embed.proj",),
    kinds=(
        BlockKind(
            name="joint",
            container="transformer_blocks",
            branches=(
                Modulation(
                    "norm1.linear",
                    "image",
                    {6: GATES_OF_SIX, 9: GATES_OF_NINE},
                    norms={6: NORMS_OF_SIX, 9: NORMS_OF_NINE},
                ),
                # Two chunks, scale and shift: the last text block is pre-only.
                Modulation(
                    "norm1_context.linear",
                    "text",
                    {6: GATES_OF_SIX, 2: ()},
                    norms={
                        6: NORMS_OF_SIX,
                        2: ((0, "attention", "scale"), (1, "attention", "shift")),
                    },
                ),
            ),
        ),
    ),
)
