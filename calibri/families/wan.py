"""Wan 2.1 and 2.2 and what is built on them: VACE, S2V, HuMo, Animate, WanDancer, SCAIL, causal AR.

A block adds a table of its own to the modulation that all blocks share, so no linear of the block
computes the gates: branches are scaled where they end. The plain blocks of all variants have the
same branches, so their coefficients have the same names.
"""

from __future__ import annotations

from .entry import INTERLEAVED, BlockKind, Family, Output

WAN = Family(
    name="wan",
    classes=("WanModel",),
    needs=("patch_embedding", "time_projection", "head.head"),
    kinds=(
        BlockKind(
            name="block",
            container="blocks",
            branches=(
                Output("self_attn.o", "attention", "image"),
                Output("cross_attn.o", "cross_attention", "image"),
                # HuMo's blocks look at the sound too.
                Output(
                    "audio_cross_attn_wrapper.audio_cross_attn.o",
                    "audio_attention",
                    "image",
                    optional=True,
                ),
                # All of it: the activation is folded into the last linear, whose forward may not
                # be called.
                Output("ffn", "mlp", "image"),
            ),
        ),
        # VACE: blocks of a control stream, each of which adds to the stream of the plain blocks.
        BlockKind(
            name="vace",
            container="vace_blocks",
            branches=(
                Output("before_proj", "hint", "control", optional=True),  # the first block only
                Output("self_attn.o", "attention", "control"),
                Output("cross_attn.o", "cross_attention", "control"),
                Output("ffn", "mlp", "control"),
                Output("after_proj", "control", "image"),
            ),
            optional=True,
        ),
        # Adapters between the blocks. They look at one frame at a time.
        BlockKind(  # S2V
            name="audio",
            container="audio_injector.injector",
            branches=(Output("o", "cross_attention", "image", rows=INTERLEAVED),),
            optional=True,
        ),
        BlockKind(  # WanDancer
            name="music",
            container="music_injector.injector",
            branches=(Output("o", "cross_attention", "image", rows=INTERLEAVED),),
            optional=True,
        ),
        BlockKind(  # Animate
            name="face",
            container="face_adapter.fuser_blocks",
            branches=(Output("linear2", "cross_attention", "image"),),
            optional=True,
        ),
    ),
)
