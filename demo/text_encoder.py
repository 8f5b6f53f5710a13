"""The demo's text encoder: a two-layer CLIP text model over whole words.

Causal attention, final layer norm, pooled output at the end token; names are those of a CLIP
checkpoint, so that ComfyUI's own CLIP classes can hold the file (`nodes/demo_clip.py`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .prompts import WORDS, split_words

PAD, BOS, EOS, UNKNOWN = range(4)
VOCABULARY: tuple[str, ...] = ("<pad>", "<start>", "<end>", "<unknown>", *WORDS)
IDS = {word: index for index, word in enumerate(VOCABULARY)}
LENGTH = 16
"""Tokens per prompt with start and end; the longest prompt of `prompts.py` has 14 words."""
WIDTH = 64
LAYERS = 2
HEADS = 2


def tokenize(text: str) -> list[int]:
    """Ids of a prompt's words without start, end or padding; unknown words become UNKNOWN."""
    return [IDS.get(word, UNKNOWN) for word in split_words(text)]


def token_rows(prompts: list[str]) -> Tensor:
    """Ids [B, 16]: start, words (cut at 14), end, padding."""
    rows = torch.full((len(prompts), LENGTH), PAD, dtype=torch.long)
    for row, prompt in zip(rows, prompts, strict=True):
        ids = [BOS, *tokenize(prompt)[: LENGTH - 2], EOS]
        row[: len(ids)] = torch.tensor(ids)
    return rows


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(WIDTH, WIDTH)
        self.k_proj = nn.Linear(WIDTH, WIDTH)
        self.v_proj = nn.Linear(WIDTH, WIDTH)
        self.out_proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed: Tensor = self.out_proj(out.transpose(1, 2).flatten(2))
        return mixed


class _MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(WIDTH, 4 * WIDTH)
        self.fc2 = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(WIDTH)
        self.self_attn = _Attention()
        self.layer_norm2 = nn.LayerNorm(WIDTH)
        self.mlp = _MLP()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class _Embeddings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(len(VOCABULARY), WIDTH)
        self.position_embedding = nn.Embedding(LENGTH, WIDTH)


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer() for _ in range(LAYERS))


class _TextModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embeddings = _Embeddings()
        self.encoder = _Encoder()
        self.final_layer_norm = nn.LayerNorm(WIDTH)


class TextEncoder(nn.Module):
    """Token ids [B, 16] → prompt tokens [B, 16, 64] and a pooled vector [B, 64]."""

    def __init__(self) -> None:
        super().__init__()
        self.text_model = _TextModel()
        self.text_projection = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        model = self.text_model
        x = model.embeddings.token_embedding(ids) + model.embeddings.position_embedding.weight
        for layer in model.encoder.layers:
            x = layer(x)
        x = model.final_layer_norm(x)
        end = (ids == EOS).int().argmax(dim=-1)
        pooled = self.text_projection(x[torch.arange(len(ids), device=ids.device), end])
        return x, pooled
