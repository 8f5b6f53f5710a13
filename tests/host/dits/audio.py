"""Stable Audio, ACE-Step and MiniMax Music."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from comfy.ldm.ace.lyric_encoder import ConformerEncoder
from comfy.ldm.ace.model import ACEStepTransformer2DModel
from comfy.ldm.audio.dit import AudioDiffusionTransformer
from torch import Tensor, nn

from ..tiny_models import OPERATIONS, randomised
from .case import DitCase

STABLE_AUDIO_3: dict[str, Any] = {
    "global_cond_type": "adaLN",
    "global_cond_shared_embed": True,
    "local_add_cond_dim": 5,
    "num_memory_tokens": 2,
    "timestep_features_type": "expo",
    "norm_type": "rms_norm",
    "attn_kwargs": {"qk_norm": "rms", "differential": True},
}


def draw(rows: slice, dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, *shape, generator=generator)[rows].to(dtype) for shape in shapes]


def dtype_of(model: nn.Module) -> torch.dtype:
    return next(model.parameters()).dtype


def make_stable_audio(**changes: Any) -> nn.Module:
    """Two blocks for latents of 4 channels."""
    known = inspect.signature(AudioDiffusionTransformer.__init__).parameters
    if "timestep_features_type" in changes and "timestep_features_type" not in known:
        raise ImportError("no timestep_features_type")
    config: dict[str, Any] = {
        "io_channels": 4,
        "embed_dim": 64,
        "cond_token_dim": 32,
        "global_cond_dim": 24,
        "depth": 2,
        "num_heads": 2,
    }
    return randomised(AudioDiffusionTransformer(operations=OPERATIONS, **{**config, **changes}))


def call_stable_audio(model: nn.Module, rows: slice) -> Tensor:
    """Latents [rows, 4, 9], five tokens."""
    latents, context, seconds, kept = draw(rows, dtype_of(model), (4, 9), (5, 32), (24,), (5, 9))
    timestep = torch.tensor([0.9, 0.5, 0.1])[rows]
    local = (
        {"local_add_cond": kept} if hasattr(model.transformer.layers[0], "to_local_embed") else {}
    )
    output: Tensor = model(latents, timestep, context, global_embed=seconds, **local)
    return output


def make_ace_step(**changes: Any) -> nn.Module:
    """Two blocks; a small encoder for the lyrics in place of one with a hundred million weights."""
    config: dict[str, Any] = {
        "out_channels": 8,
        "num_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "mlp_ratio": 2.5,
        "max_position": 64,
        "speaker_embedding_dim": 8,
        "text_embedding_dim": 16,
        "lyric_encoder_vocab_size": 20,
        "lyric_hidden_size": 16,
        "ssl_latent_dims": [8, 8],
    }
    config = {**config, **changes}
    model = ACEStepTransformer2DModel(operations=OPERATIONS, **config)
    if "device" not in changes:
        model.lyric_encoder = ConformerEncoder(
            input_size=16,
            output_size=16,
            attention_heads=2,
            linear_units=32,
            num_blocks=1,
            static_chunk_size=0,
            operations=OPERATIONS,
        )
    return randomised(model)


def call_ace_step(model: nn.Module, rows: slice) -> Tensor:
    """Latents [rows, 8, 16, 9], five tokens, four of the lyrics."""
    latents, context, speaker = draw(rows, dtype_of(model), (8, 16, 9), (5, 16), (8,))
    output: Tensor = model(
        latents,
        torch.tensor([0.9, 0.5, 0.1])[rows],
        context=context,
        speaker_embeds=speaker,
        lyric_token_idx=torch.arange(12).view(3, 4)[rows],
        lyrics_strength=0.8,
    )
    return output


def make_ace_step_1_5(full: bool = False) -> nn.Module:
    """Two blocks, the first with a sliding window of two tokens; or `full`, the real decoder behind
    tiny encoders, of which one cannot be made on the meta device.
    """
    from comfy.ldm.ace.ace_step15 import AceStepConditionGenerationModel, AceStepDiTModel

    model = AceStepConditionGenerationModel(operations=OPERATIONS, **TINY_ACE_STEP_1_5)
    model.encoder = OneByOne(model.encoder)
    if full:
        model.decoder = AceStepDiTModel(
            in_channels=192,
            hidden_size=2048,
            num_layers=24,
            num_heads=16,
            num_kv_heads=8,
            head_dim=128,
            intermediate_size=6144,
            patch_size=2,
            audio_acoustic_hidden_dim=64,
            condition_dim=2048,
            device="meta",
            operations=OPERATIONS,
        )
    return randomised(model)


class OneByOne(nn.Module):
    """An encoder called for each sample: ACE-Step 1.5's gives the timbres of a whole batch to its
    first sample, so that a sample's prediction depends on the batch without any coefficient.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, *tensors: Tensor | None) -> tuple[Tensor, None]:
        samples = next(tensor.shape[0] for tensor in tensors if tensor is not None)
        found = [
            self.encoder(*(None if tensor is None else tensor[i : i + 1] for tensor in tensors))[0]
            for i in range(samples)
        ]
        return torch.cat(found), None


TINY_ACE_STEP_1_5: dict[str, Any] = {
    "in_channels": 12,
    "hidden_size": 32,
    "text_hidden_dim": 16,
    "timbre_hidden_dim": 4,
    "audio_acoustic_hidden_dim": 4,
    "num_dit_layers": 2,
    "num_lyric_layers": 1,
    "num_timbre_layers": 1,
    "num_tokenizer_layers": 1,
    "num_heads": 2,
    "num_kv_heads": 1,
    "head_dim": 16,
    "intermediate_size": 48,
    "sliding_window": 2,
    "fsq_dim": 32,
    "encoder_hidden_size": 32,
    "encoder_intermediate_size": 48,
    "encoder_num_heads": 2,
}


def call_ace_step_1_5(model: nn.Module, rows: slice) -> Tensor:
    """Latents [rows, 4, 11], five tokens, four of the lyrics."""
    latents, context, lyrics, timbre = draw(
        rows, dtype_of(model), (4, 11), (5, 16), (4, 16), (4, 11)
    )
    output: Tensor = model(
        latents,
        torch.tensor([0.9, 0.5, 0.1])[rows],
        context,
        lyric_embed=lyrics,
        refer_audio=timbre,
        is_covers=False,
    )
    return output


def make_minimax_music(width: int = 64, depth: int = 2, **changes: Any) -> nn.Module:
    """The class has one size: for a tiny one, all that is wide gets narrow parts."""
    from comfy.ldm.minimax_music import dit

    if changes:
        return randomised(dit.MiniMaxMusic3DiT(operations=OPERATIONS, **changes))
    model = dit.MiniMaxMusic3DiT(device="meta", operations=OPERATIONS)
    linear, conv = OPERATIONS.Linear, OPERATIONS.Conv1d
    inner = model.diffusion_transformer
    model.latent_conditioners = nn.Sequential(conv(4096, 2048, 3, padding=1, groups=2048))
    model.cond_layer_logits = nn.Parameter(torch.empty(8))
    model.cond_layer_scale = nn.Parameter(torch.empty(1))
    inner.timestep_features = dit.FourierFeatures(1, 16, None, None)
    inner.to_timestep_embed = nn.Sequential(linear(16, width), nn.SiLU(), linear(width, width))
    inner.preprocess_conv = conv(2304, 2304, 1, groups=2304, bias=False)
    inner.postprocess_conv = conv(128, 128, 1, groups=128, bias=False)
    inner.transformer.project_in = linear(2304, width, bias=False)
    inner.transformer.project_out = linear(width, 128, bias=False)
    inner.transformer.rotary_pos_emb = dit.RotaryEmbedding(16, None, None)
    inner.transformer.layers = nn.ModuleList(
        dit.TransformerBlock(width, 32, 96, None, None, OPERATIONS) for _ in range(depth)
    )
    return randomised(model)


def call_minimax_music(model: nn.Module, rows: slice) -> Tensor:
    """Latents [rows, 128, 700]: two windows, each a call of the blocks."""
    latents, context = draw(rows, dtype_of(model), (128, 700), (2, 8 * 4096))
    scale = torch.tensor([1.0, 0.8, 0.6]).view(3, 1, 1)[rows].to(latents.dtype)
    output: Tensor = model(latents, torch.tensor([0.9, 0.5, 0.1])[rows], context, scale)
    return output


CASES = (
    DitCase(
        name="Stable Audio",
        family="stable-audio",
        make=make_stable_audio,
        call=call_stable_audio,
        sizes={
            "Stable Audio Open": lambda: make_stable_audio(
                device="meta",
                io_channels=64,
                embed_dim=1536,
                cond_token_dim=768,
                global_cond_dim=1536,
                depth=24,
                num_heads=24,
            )
        },
    ),
    DitCase(
        name="Stable Audio 3",
        family="stable-audio-3",
        make=lambda: make_stable_audio(**STABLE_AUDIO_3),
        call=call_stable_audio,
    ),
    DitCase(
        name="ACE-Step",
        family="ace-step",
        make=make_ace_step,
        call=call_ace_step,
        sizes={
            "ACE-Step 1.0": lambda: make_ace_step(
                device="meta",
                num_layers=24,
                attention_head_dim=128,
                num_attention_heads=20,
                lyric_hidden_size=1024,
            )
        },
    ),
    DitCase(
        name="ACE-Step 1.5",
        family="ace-step-1.5",
        make=make_ace_step_1_5,
        call=call_ace_step_1_5,
        sizes={"ACE-Step 1.5": lambda: make_ace_step_1_5(full=True)},
    ),
    DitCase(
        name="MiniMax Music 3",
        family="minimax-music-3",
        make=make_minimax_music,
        call=call_minimax_music,
        sizes={"MiniMax Music 3": lambda: make_minimax_music(device="meta")},
    ),
)
