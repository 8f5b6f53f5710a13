"""Models with double blocks like Qwen-Image's: Mage-Flow and Lens."""

from __future__ import annotations

from .entry import Family
from .qwen_image import QWEN_IMAGE

MAGE_FLOW = Family(
    name="mage-flow",
    classes=("MageFlowTransformer2DModel",),
    needs=("txt_norm",),
    kinds=QWEN_IMAGE.kinds,
)

LENS = Family(
    name="lens",
    classes=("LensTransformer2DModel",),
    needs=("transformer_blocks.0.attn.img_qkv",),
    kinds=QWEN_IMAGE.kinds,
)
