"""Ideogram 4: Lumina 2's layers on text and image in one sequence, without refiners."""

from __future__ import annotations

from .entry import BlockKind, Family, Output

IDEOGRAM_4 = Family(
    name="ideogram4",
    classes=("Ideogram4Transformer2DModel",),
    needs=("embed_image_indicator", "llm_cond_proj"),
    kinds=(
        BlockKind(
            name="layer",
            container="layers",
            branches=(
                # The gates pass through tanh; a norm comes between branch and gate.
                Output("attention_norm2", "attention", "joint"),
                Output("ffn_norm2", "mlp", "joint"),
            ),
        ),
    ),
)
