"""Models built from FLUX.1's blocks: FLUX.2, Chroma, LongCat-Image, Ovis-Image."""

from __future__ import annotations

from .entry import BlockKind, Family, Output
from .flux import FLUX

# For modulations that are made outside the blocks: one for all blocks (FLUX.2), or every block's
# by one network (Chroma).
UNMODULATED = (
    BlockKind(
        name="double",
        container="double_blocks",
        branches=(
            Output("img_attn.proj", "attention", "image"),
            Output("img_mlp", "mlp", "image"),
            Output("txt_attn.proj", "attention", "text"),
            Output("txt_mlp", "mlp", "text"),
        ),
    ),
    BlockKind(
        name="single",
        container="single_blocks",
        branches=(Output("linear2", "fused", "joint"),),
    ),
)

FLUX_2 = Family(
    name="flux2",
    classes=("Flux",),
    needs=("double_stream_modulation_img.lin", "single_stream_modulation.lin"),
    kinds=UNMODULATED,
)

# Chroma Radiance's NeRF blocks behind these paint pixels with weights made for each patch; their
# branch ends in a product of two activations, so no module holds it.
CHROMA = Family(
    name="chroma",
    classes=("Chroma",),
    needs=("distilled_guidance_layer.out_proj",),
    lacks=("double_blocks.0.img_mod", "single_blocks.0.modulation"),
    kinds=UNMODULATED,
)

# These two modulate each block as FLUX.1 does, but have no pooled text.
OVIS_IMAGE = Family(
    name="ovis-image",
    classes=("Flux",),
    needs=("txt_norm", "double_blocks.0.img_mlp.gate_proj"),
    lacks=("vector_in.in_layer",),
    kinds=FLUX.kinds,
)

LONGCAT_IMAGE = Family(
    name="longcat-image",
    classes=("Flux",),
    lacks=("vector_in.in_layer", "txt_norm", "double_blocks.0.img_mlp.gate_proj"),
    kinds=FLUX.kinds,
)
