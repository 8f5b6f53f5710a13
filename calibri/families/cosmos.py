"""Cosmos 1 (diffusion 7B and 14B), Cosmos-Predict2, and Anima, an image model of Predict2's shape.

All blocks share a part of the modulation, added behind each block's own adaLN linears: branches are
scaled where they end.
"""

from __future__ import annotations

from .entry import BlockKind, Family, Output

# Each block is a list of three: attention, cross attention, MLP. Inside, tensors are
# [tokens, B, channels] and [T, H, W, B, channels].
COSMOS = Family(
    name="cosmos",
    classes=("GeneralDIT",),
    kinds=(
        BlockKind(
            name="block",
            container="blocks",
            branches=(
                Output("blocks.0.block.attn.to_out.0", "attention", "image", axis=1),
                Output("blocks.1.block.attn.to_out.0", "cross_attention", "image", axis=1),
                Output("blocks.2.block.layer2", "mlp", "image", axis=3),
            ),
        ),
    ),
)

_KINDS = (
    BlockKind(
        name="block",
        container="blocks",
        branches=(
            Output("self_attn.output_proj", "attention", "image"),
            Output("cross_attn.output_proj", "cross_attention", "image"),
            Output("mlp.layer2", "mlp", "image"),
        ),
    ),
)

COSMOS_PREDICT2 = Family(
    name="cosmos-predict2", classes=("MiniTrainDIT",), kinds=_KINDS, lacks=("llm_adapter",)
)

ANIMA = Family(name="anima", classes=("Anima",), kinds=_KINDS, needs=("llm_adapter",))
