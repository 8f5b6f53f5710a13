"""LTX-Video, and LTX-2 with a second, audio stream.

Gates are a table of the block plus a modulation that all blocks share, and the attention to the
text may have none, so branches are scaled at their outputs. A feed-forward is tapped whole: it does
not call its last linear as a module.
"""

from __future__ import annotations

from .entry import BlockKind, Family, Output

LTX_VIDEO = Family(
    name="ltx-video",
    classes=("LTXVModel",),
    needs=("adaln_single.linear",),
    lacks=("audio_adaln_single",),  # LTX-2 is a subclass
    kinds=(
        BlockKind(
            name="block",
            container="transformer_blocks",
            branches=(
                Output("attn1.to_out.0", "attention", "image"),
                Output("attn2.to_out.0", "cross_attention", "image"),
                Output("ff", "mlp", "image"),
            ),
        ),
    ),
)

LTX_2 = Family(
    name="ltx-2",
    classes=("LTXAVModel",),
    needs=("audio_adaln_single.linear",),
    kinds=(
        BlockKind(
            name="block",
            container="transformer_blocks",
            branches=(
                Output("attn1.to_out.0", "attention", "image"),
                Output("attn2.to_out.0", "cross_attention", "image"),
                # What the picture takes from the sound, and the sound from the picture.
                Output("audio_to_video_attn.to_out.0", "av_attention", "image"),
                Output("ff", "mlp", "image"),
                Output("audio_attn1.to_out.0", "attention", "audio"),
                Output("audio_attn2.to_out.0", "cross_attention", "audio"),
                Output("video_to_audio_attn.to_out.0", "av_attention", "audio"),
                Output("audio_ff", "mlp", "audio"),
            ),
        ),
    ),
)
