"""Stable Audio, ACE-Step and MiniMax Music: gates, if any, that no linear of the block makes alone.

Stable Audio takes the sigmoid of them, ACE-Step adds a table per block to one shared modulation,
and MiniMax Music has none.
"""

from __future__ import annotations

from .entry import BlockKind, Family, Output

_ATTENTION = Output("self_attn", "attention", "audio")
_CROSS_ATTENTION = Output("cross_attn", "cross_attention", "audio")

STABLE_AUDIO = Family(
    name="stable-audio",
    classes=("AudioDiffusionTransformer",),
    needs=("transformer.project_in", "to_cond_embed"),
    lacks=("transformer.global_cond_embedder",),
    kinds=(
        BlockKind(
            name="block",
            container="transformer.layers",
            branches=(_ATTENTION, _CROSS_ATTENTION, Output("ff.ff.2", "mlp", "audio")),
        ),
    ),
)

STABLE_AUDIO_3 = Family(
    name="stable-audio-3",
    classes=("AudioDiffusionTransformer",),
    needs=("transformer.global_cond_embedder", "to_cond_embed"),
    kinds=(
        BlockKind(
            name="block",
            container="transformer.layers",
            branches=(
                _ATTENTION,
                _CROSS_ATTENTION,
                # What is to be kept when inpainting: each block adds an embedding of it.
                Output("to_local_embed.2", "inpainting", "audio", optional=True),
                Output("ff.ff.2", "mlp", "audio"),
            ),
        ),
    ),
)

ACE_STEP = Family(
    name="ace-step",
    classes=("ACEStepTransformer2DModel",),
    needs=("t_block.1", "lyric_proj"),
    kinds=(
        BlockKind(
            name="block",
            container="transformer_blocks",
            branches=(
                Output("attn.to_out.0", "attention", "audio"),
                Output("cross_attn.to_out.0", "cross_attention", "audio"),
                Output("ff.point_conv.conv", "mlp", "audio"),
            ),
        ),
    ),
)

ACE_STEP_1_5 = Family(
    name="ace-step-1.5",
    classes=("AceStepConditionGenerationModel",),
    needs=("decoder.time_embed_r",),
    kinds=(
        BlockKind(
            name="block",
            container="decoder.layers",
            branches=(
                Output("self_attn.o_proj", "attention", "audio"),
                Output("cross_attn.o_proj", "cross_attention", "audio"),
                Output("mlp.down_proj", "mlp", "audio"),
            ),
        ),
    ),
)

MINIMAX_MUSIC_3 = Family(
    name="minimax-music-3",
    classes=("MiniMaxMusic3DiT",),
    needs=("latent_conditioners",),
    kinds=(
        BlockKind(
            name="block",
            container="diffusion_transformer.transformer.layers",
            branches=(
                Output("self_attn.to_out", "attention", "audio"),
                Output("ff.ff.2", "mlp", "audio"),
            ),
        ),
    ),
)
