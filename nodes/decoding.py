"""From latents to what a reward sees: pictures of the VAE, or of a small one while searching.

A TAESD decodes many times faster than its VAE and nearly alike. It stands in for images that the
search itself draws; what is measured on held-out prompts, and with it every choice and every number
that a run reports, is decoded in full.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..calibri.agreement import rank_agreement
from ..calibri.evaluation import Batch, Floats

if TYPE_CHECKING:
    from comfy.sd import VAE

LOW_AGREEMENT = 0.8  # below, the search would climb another hill than the reward's


def decode(vae: VAE, latents: torch.Tensor) -> torch.Tensor:
    """Images [B, H, W, 3] in 0..1 of latents [B, C, h, w] or [B, C, 1, h, w]."""
    images = vae.decode(latents)
    if images.ndim == 5:
        images = images[:, 0]  # a video VAE's [B, frames, H, W, 3], of one latent frame
    return images[..., :3].float().clamp(0.0, 1.0)


@dataclass(frozen=True)
class Agreement:
    """Spearman's correlation of rewards through both decoders, over the images of one batch."""

    correlation: float
    images: int

    @property
    def sentence(self) -> str:
        """For people."""
        said = (
            f"The preview decoder ranks candidates as the VAE does with a correlation of "
            f"{self.correlation:.2f} on the run's first {self.images} images."
        )
        if not self.correlation >= LOW_AGREEMENT:
            said += " That is low: disconnect preview_vae, or expect a weaker search."
        return said


class Preview:
    """Decodes the search's images with a small VAE. `agreement` is known after the first batch."""

    def __init__(self, vae: VAE, full: VAE, searched: int) -> None:
        """`searched`: the first so many prompts are searched on, the others held out.

        Raises ValueError where the two decode different latents.
        """
        same = vae.latent_channels == full.latent_channels
        if not same or vae.spacial_compression_decode() != full.spacial_compression_decode():
            raise ValueError(
                f"The preview_vae decodes latents of {vae.latent_channels} channels, "
                f"{vae.spacial_compression_decode()} pixels a cell, but the VAE's are of "
                f"{full.latent_channels} channels, {full.spacial_compression_decode()} pixels; "
                "load the TAESD of this model (taesd3 for SD3.5, taef1 for FLUX.1)."
            )
        self.vae = vae
        self.agreement: Agreement | None = None
        self.say: Callable[[str], None] = lambda sentence: logging.info("Calibri: %s", sentence)
        self._searched = searched

    def stands_in(self, prompts: list[int]) -> bool:
        """Whether a batch of these prompts is the search's own."""
        return max(prompts) < self._searched

    def compare(self, small: Floats, full: Floats, batch: Batch) -> None:
        """Keep, and say, how the rewards [B] through both decoders agree."""
        correlation = rank_agreement(small, full, [position for _, position in batch])
        self.agreement = Agreement(correlation, len(batch))
        self.say(self.agreement.sentence)
