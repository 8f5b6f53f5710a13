"""Lumina 2 and Z-Image: refiners for the text and for the picture, then layers for both.

A norm ends each branch and its gate passes through tanh, so branches are scaled at that norm's
output: behind it, the scale of an earlier module would be lost.
"""

from __future__ import annotations

from .entry import BlockKind, Family, Output


def _normed(stream: str) -> tuple[Output, Output]:
    return (
        Output("attention_norm2", "attention", stream),
        Output("ffn_norm2", "mlp", stream),
    )


KINDS = (
    BlockKind(name="context_refiner", container="context_refiner", branches=_normed("text")),
    BlockKind(  # Z-Image Omni: what a vision encoder saw in the references
        name="siglip_refiner",
        container="siglip_refiner",
        branches=_normed("siglip"),
        optional=True,
    ),
    BlockKind(name="noise_refiner", container="noise_refiner", branches=_normed("image")),
    BlockKind(name="layer", container="layers", branches=_normed("joint")),
)

# Here a SiLU comes before the linear that makes a layer's gates.
LUMINA2 = Family(
    name="lumina2",
    classes=("NextDiT",),
    needs=("cap_embedder.1", "layers.0.adaLN_modulation.1"),
    lacks=("dec_net",),
    kinds=KINDS,
)

# In pixel space the same layers are followed by a network of its own that paints each patch.
Z_IMAGE = Family(
    name="z-image",
    classes=("NextDiT",),
    needs=("cap_embedder.1", "layers.0.adaLN_modulation.0"),
    lacks=("layers.0.adaLN_modulation.1",),
    kinds=KINDS,
)
