"""Krea 2: text and image in one sequence, under one modulation to which each block adds a vector.

Reference latents lie behind the image, at timestep zero if the method says so, and pass through the
same branches. The transformer that fuses the text encoder's layers belongs to the text.
"""

from __future__ import annotations

from .entry import BlockKind, Family, Output

KREA_2 = Family(
    name="krea2",
    classes=("SingleStreamDiT",),
    needs=("txtfusion.projector", "tproj.1"),
    kinds=(
        BlockKind(
            name="block",
            container="blocks",
            branches=(
                Output("attn.wo", "attention", "joint"),
                Output("mlp", "mlp", "joint"),
            ),
        ),
    ),
)
