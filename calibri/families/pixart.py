"""PixArt-alpha and PixArt-Sigma: a table per block is added to one modulation shared by all."""

from __future__ import annotations

from .entry import BlockKind, Family, Output

PIXART = Family(
    name="pixart",
    classes=("PixArtMS",),
    needs=("t_block.1", "y_embedder.y_proj"),
    kinds=(
        BlockKind(
            name="block",
            container="blocks",
            branches=(
                Output("attn.proj", "attention", "image"),
                Output("cross_attn.proj", "cross_attention", "image"),
                Output("mlp.fc2", "mlp", "image"),
            ),
        ),
    ),
)
