"""ERNIE-Image: image and text in one sequence, under one modulation for all layers."""

from __future__ import annotations

from .entry import BlockKind, Family, Output

ERNIE_IMAGE = Family(
    name="ernie-image",
    classes=("ErnieImageModel",),
    needs=("adaLN_modulation.1", "layers.0.adaLN_sa_ln"),
    kinds=(
        BlockKind(
            name="layer",
            container="layers",
            branches=(
                Output("self_attention.to_out.0", "attention", "joint"),
                Output("mlp", "mlp", "joint"),
            ),
        ),
    ),
)
