"""HunyuanVideo, 1.5, HunyuanImage 2.1 and its refiner: FLUX.1's blocks behind a text refiner."""

from __future__ import annotations

from dataclasses import replace

from .entry import BlockKind, Family, Modulation
from .flux import FLUX

REFINER = BlockKind(
    name="refiner",
    container="txt_in.individual_token_refiner.blocks",
    branches=(Modulation("adaLN_modulation.1", "text", {2: ((0, "attention"), (1, "mlp"))}),),
)
DOUBLE, SINGLE = FLUX.kinds

# Image-to-video, SkyReels and HunyuanCustom only add inputs: channels, a first frame that passes
# as another timestep (two gates per sample), reference tokens.
HUNYUAN_VIDEO = Family(
    name="hunyuan-video",
    classes=("HunyuanVideo",),
    needs=("vector_in.in_layer",),
    kinds=(REFINER, DOUBLE, SINGLE),
)

HUNYUAN_VIDEO_15 = Family(
    name="hunyuan-video-1.5",
    classes=("HunyuanVideo",),
    needs=("vision_in", "cond_type_embedding"),
    lacks=("vector_in.in_layer", "single_blocks.0"),
    # Without single blocks nothing reads the text after the last double block.
    kinds=(REFINER, replace(DOUBLE, unread_in_last=("text",))),
)

HUNYUAN_IMAGE = Family(
    name="hunyuan-image",
    classes=("HunyuanVideo",),
    needs=("byt5_in.fc1",),
    lacks=("vector_in.in_layer", "cond_type_embedding"),
    kinds=(REFINER, DOUBLE, SINGLE),
)

HUNYUAN_IMAGE_REFINER = Family(
    name="hunyuan-image-refiner",
    classes=("HunyuanVideo",),
    lacks=("vector_in.in_layer", "byt5_in.fc1", "cond_type_embedding"),
    kinds=(REFINER, DOUBLE, SINGLE),
)
