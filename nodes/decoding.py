"""From latents to what a reward sees: pictures of the VAE, or of a small one while searching.

A TAESD decodes many times faster than its VAE and nearly alike. It stands in for images that the
search itself draws; what is measured on held-out prompts, and with it every choice and every number
that a run reports, is decoded in full.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..calibri.agreement import rank_agreement
from ..calibri.evaluation import Batch, Floats

if TYPE_CHECKING:
    from comfy.sd import VAE

    from ..calibri.journal import Journal

COMPARED = 16  # images; fewer tell no correlation
MEASURED = "preview decoder measured"  # the journal's event
LOW_AGREEMENT = 0.8  # below, the search would climb another hill than the reward's


def decode(vae: VAE, latents: torch.Tensor) -> torch.Tensor:
    """Images [B, H, W, 3] in 0..1 of latents [B, C, h, w] or [B, C, 1, h, w]."""
    images = vae.decode(latents)
    if images.ndim == 5:
        images = images[:, 0]  # a video VAE's [B, frames, H, W, 3], of one latent frame
    return images[..., :3].float().clamp(0.0, 1.0)


@dataclass(frozen=True)
class Agreement:
    """Spearman's correlation of rewards through both decoders, over the run's first images.

    NaN where all of them score alike.
    """

    correlation: float
    images: int

    @property
    def sentence(self) -> str:
        """For people."""
        if math.isnan(self.correlation):
            return (
                f"How the preview decoder ranks candidates could not be measured: the run's first "
                f"{self.images} images score alike."
            )
        said = (
            f"The preview decoder ranks candidates as the VAE does with a correlation of "
            f"{self.correlation:.2f} on the run's first {self.images} images."
        )
        if self.correlation < LOW_AGREEMENT:
            said += " That is low: disconnect preview_vae, or expect a weaker search."
        return said

    def record(self) -> dict[str, Any]:
        """As JSON."""
        known = math.isfinite(self.correlation)
        return {"rank_correlation": self.correlation if known else None, "images": self.images}


class Preview:
    """Decodes the search's images with a small VAE.

    `agreement` is None until the first images are decoded both ways, or the journal has it.
    """

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
        self._journal: Journal | None = None
        self._small: list[float] = []
        self._full: list[float] = []
        self._samples: list[tuple[int, int]] = []  # (round of positions, position)
        self._pairs: set[tuple[int, int]] = set()
        self._round = 0

    def stands_in(self, prompts: list[int]) -> bool:
        """Whether a batch of these prompts is the search's own."""
        return max(prompts) < self._searched

    def remember(self, journal: Journal) -> None:
        """Go on with what an earlier session of the run measured; keep there what this one does."""
        self._journal = journal
        for event in journal.events():
            if event.kind == MEASURED:
                correlation = event.detail["rank_correlation"]
                self.agreement = Agreement(
                    math.nan if correlation is None else correlation, event.detail["images"]
                )

    def compare(self, small: Floats, full: Floats, batch: Batch) -> None:
        """Hear of the rewards [B] through both decoders, until enough are there to keep and say
        how they agree."""
        if not self._pairs.isdisjoint(batch):  # the next generation: other noise, other prompts
            self._pairs, self._round = set(), self._round + 1
        self._pairs.update(batch)
        self._small += small.tolist()
        self._full += full.tolist()
        self._samples += [(self._round, position) for _, position in batch]
        # One candidate alone on its sample is compared with nothing.
        counts = Counter(self._samples)
        if sum(count for count in counts.values() if count > 1) < COMPARED:
            return
        numbers = {sample: number for number, sample in enumerate(counts)}
        correlation = rank_agreement(
            np.array(self._small), np.array(self._full), [numbers[s] for s in self._samples]
        )
        self.agreement = found = Agreement(correlation, len(self._samples))
        if self._journal is not None:
            self._journal.add_event(MEASURED, found.record())
        self.say(found.sentence)
