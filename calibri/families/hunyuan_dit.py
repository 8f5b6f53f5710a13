"""HunyuanDiT: branches without gates; the later blocks begin with a long skip connection."""

from __future__ import annotations

from .entry import BlockKind, Family, Output

HUNYUAN_DIT = Family(
    name="hunyuan-dit",
    classes=("HunYuanDiT",),
    needs=("mlp_t5", "pooler"),
    kinds=(
        BlockKind(
            name="block",
            container="blocks",
            branches=(
                Output("attn1.out_proj", "attention", "image"),
                Output("attn2.out_proj", "cross_attention", "image"),
                Output("mlp.fc2", "mlp", "image"),
            ),
        ),
    ),
)
