"""OmniGen2, and Boogu, which puts double blocks between OmniGen2's refiners and its layers.

As in Lumina 2 a norm ends each branch and its gate passes through tanh: branches are scaled at that
norm's output. The reference refiner runs where there are reference latents.
"""

from __future__ import annotations

from .entry import BlockKind, Family, Output


def _normed(stream: str) -> tuple[Output, Output]:
    return (Output("norm2", "attention", stream), Output("ffn_norm2", "mlp", stream))


REFINERS = (
    BlockKind(name="context_refiner", container="context_refiner", branches=_normed("text")),
    BlockKind(name="noise_refiner", container="noise_refiner", branches=_normed("image")),
    BlockKind(
        name="reference_refiner", container="ref_image_refiner", branches=_normed("reference")
    ),
)

OMNIGEN2 = Family(
    name="omnigen2",
    classes=("OmniGen2Transformer2DModel",),
    needs=("time_caption_embed.timestep_embedder.linear_1",),
    kinds=(
        *REFINERS,
        BlockKind(name="layer", container="layers", branches=_normed("joint")),
    ),
)

BOOGU = Family(
    name="boogu",
    classes=("BooguTransformer2DModel",),
    needs=("time_caption_embed.timestep_embedder.linear_1",),
    kinds=(
        *REFINERS,
        BlockKind(
            name="double",
            container="double_stream_layers",
            branches=(
                Output("img_attn_norm", "attention", "image"),
                Output("img_self_attn_norm", "attention2", "image"),  # to the image alone
                Output("img_ffn_norm2", "mlp", "image"),
                Output("instruct_attn_norm", "attention", "text"),
                Output("instruct_ffn_norm2", "mlp", "text"),
            ),
        ),
        BlockKind(name="single", container="single_stream_layers", branches=_normed("joint")),
    ),
)
