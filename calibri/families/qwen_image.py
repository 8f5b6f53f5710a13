"""Qwen-Image and what is trained from it: double blocks with an adaLN linear per stream."""

from __future__ import annotations

from .entry import GATES_OF_SIX, NORMS_OF_SIX, BlockKind, Family, Modulation

QWEN_IMAGE = Family(
    name="qwen-image",
    classes=("QwenImageTransformer2DModel",),
    needs=("txt_norm",),
    kinds=(
        BlockKind(
            name="block",
            container="transformer_blocks",
            branches=(
                # Twice the rows with reference latents at timestep zero: all samples, then all
                # again for the tokens of their references.
                Modulation("img_mod.1", "image", {6: GATES_OF_SIX}, norms={6: NORMS_OF_SIX}),
                Modulation("txt_mod.1", "text", {6: GATES_OF_SIX}, norms={6: NORMS_OF_SIX}),
            ),
            unread_in_last=("text",),
        ),
    ),
)
