"""JoyImage: double blocks whose gates are one shared embedding plus a table of their own."""

from __future__ import annotations

from .entry import BlockKind, Family, Output

JOYIMAGE = Family(
    name="joyimage",
    classes=("JoyImageTransformer3DModel",),
    needs=("condition_embedder.time_proj",),
    kinds=(
        BlockKind(
            name="double",
            container="double_blocks",
            branches=(
                Output("attn.img_attn_proj", "attention", "image"),
                Output("img_mlp", "mlp", "image"),
                Output("attn.txt_attn_proj", "attention", "text"),
                Output("txt_mlp", "mlp", "text"),
            ),
            unread_in_last=("text",),
        ),
    ),
)
