"""Train the demo's DiT and its text encoder together, by flow matching on cached latents."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .autoencoder import LATENT_CHANNELS, Autoencoder
from .model import Flux
from .prompts import is_held_out, to_text
from .render import render
from .scenes import sample_pairs
from .text_encoder import LENGTH, TextEncoder, token_rows
from .training import Recipe, train, write

SCATTERED = Recipe(
    steps=4000, stop_at=2800, batch=128, learning_rate=1.5e-3, warm_up=150, ema=0.9985
)
"""First on objects that stand anywhere, which teaches words, colours and shapes in every place."""
ARRANGED = Recipe(
    steps=3600,
    stop_at=2800,
    batch=128,
    learning_rate=1.2e-3,
    warm_up=50,
    decay_from=0.3,
    ema=0.998,
)
"""Then on the tidy scenes that the model is to draw; what it is at the stop is what ships."""
KEEP = (1000, 1600, 2200)
"""Steps of the second part whose averaged weights are kept, to compare their headroom."""
_SCATTERED_PICTURES, _ARRANGED_PICTURES = 65_536, 40_960
_EMPTY_PROMPTS = 0.1
"""Fraction of prompts replaced by the empty one, for classifier-free guidance."""


@dataclass(frozen=True)
class LatentCache:
    """Prompts as token ids [N, 16] and their pictures as latents [N, 16, 8, 8] (fp16)."""

    tokens: Tensor
    latents: Tensor


def latent_cache(autoencoder: Autoencoder, folder: Path, seed: int, arranged: bool) -> LatentCache:
    """Draw and encode the training pictures once; no held-out prompt is among them."""
    file = folder / ("latents-arranged.pt" if arranged else "latents-scattered.pt")
    if not file.exists():
        count = _ARRANGED_PICTURES if arranged else _SCATTERED_PICTURES
        device = next(autoencoder.parameters()).device
        tokens = torch.empty(count, LENGTH, dtype=torch.long)
        latents = torch.empty(count, LATENT_CHANNELS, 8, 8, dtype=torch.float16)
        pairs = sample_pairs(seed, arranged)
        for start in range(0, count, 64):
            prompts: list[str] = []
            pictures: list[NDArray[np.uint8]] = []
            while len(prompts) < 64:
                description, scene = next(pairs)
                text = to_text(description)
                if not is_held_out(text):
                    prompts.append(text)
                    pictures.append(render(scene))
            batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(device) / 255
            batch = batch.contiguous(memory_format=torch.channels_last)
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
                latents[start : start + 64] = autoencoder.encode(batch).half().cpu()
            tokens[start : start + 64] = token_rows(prompts)
        write(file, {"tokens": tokens, "latents": latents})
    stored = torch.load(file)
    return LatentCache(stored["tokens"], stored["latents"])


class TextToImage(nn.Module):
    """Text encoder and DiT, trained as one."""

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = TextEncoder()
        self.dit = Flux()
        self.dit.start_as_identity()

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        out: Tensor = self.dit(x, t, *self.text_encoder(tokens))
        return out


def flow_matching_batch(
    cache: LatentCache, seed: int, step: int, size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noised latents, sigma [B], token ids and velocities of one step, from (seed, step) alone."""
    g = torch.Generator().manual_seed(seed * 1_000_003 + step)
    rows = torch.randint(len(cache.tokens), (size,), generator=g)
    latents, tokens = cache.latents[rows].float(), cache.tokens[rows]
    empty = torch.rand(size, generator=g) < _EMPTY_PROMPTS
    tokens = torch.where(empty[:, None], token_rows([""]), tokens)
    # Logit-normal in strata: an even spread of noise levels in each batch (SD3, §3.1).
    quantiles = (torch.arange(size) + torch.rand(size, generator=g)) / size
    t = torch.sigmoid(torch.special.ndtri(quantiles.clamp(1e-4, 1 - 1e-4)))
    noise = torch.randn(latents.shape, generator=g)
    mix = t[:, None, None, None]
    return (1 - mix) * latents + mix * noise, t, tokens, noise - latents


def train_dit(
    autoencoder: Autoencoder, folder: Path, seed: int, device: torch.device
) -> TextToImage:
    """Train (or finish training) and return text encoder and DiT."""
    torch.manual_seed(seed + 1)
    model = TextToImage().to(device)
    # Makes a step a third shorter, and changes nothing else, where there is a compiler.
    run = torch.compile(model) if shutil.which("g++") else model
    parts = (("dit-scattered", SCATTERED, False), ("dit", ARRANGED, True))
    for part, (name, recipe, arranged) in enumerate(parts):
        cache = latent_cache(autoencoder, folder, seed + part, arranged)

        def loss(
            step: int, cache: LatentCache = cache, size: int = recipe.batch, part: int = part
        ) -> Tensor:
            batch = flow_matching_batch(cache, seed + 100 * part, step, size)
            x, t, tokens, velocity = (tensor.to(device) for tensor in batch)
            with torch.autocast(device.type, torch.bfloat16):
                predicted = run(x, t, tokens)
            error: Tensor = predicted.float() - velocity
            return error.square().mean()

        train(name, model, loss, recipe, folder, keep=KEEP if arranged else ())
    return model
