"""What goes into a reward and what comes out, checked: one sentence that names the reward."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor


def accepts_latents(reward: object) -> bool:
    """Whether `score` takes the sampler's latents [B, C, h, w] in the place of images."""
    return getattr(reward, "accepts", "pixels") == "latents"


def check_pixels(reward: object, name: str) -> None:
    """Raise ValueError for a reward of latents where there are pictures only."""
    if accepts_latents(reward):
        raise ValueError(
            f"{name} scores latents, which Calibrate samples; pictures are scored by a reward of "
            "pictures."
        )


def check_batch(name: str, images: Tensor, prompts: Sequence[str]) -> None:
    """Raise ValueError unless `images` are finite [B, H, W, 3] floats with one prompt each."""
    if images.ndim != 4 or images.shape[-1] != 3 or not images.is_floating_point():
        raise ValueError(
            f"{name} got {images.dtype} images of shape {tuple(images.shape)}; it takes RGB images "
            "[batch, height, width, 3] of floats in 0..1, as ComfyUI's IMAGE is."
        )
    if len(images) != len(prompts):
        raise ValueError(
            f"{name} got {len(images)} images and {len(prompts)} prompts; pass one prompt per "
            "image."
        )
    if 0 in images.shape[1:3]:
        raise ValueError(
            f"{name} got images of {images.shape[2]} x {images.shape[1]} pixels; "
            "connect images that are not empty."
        )
    # NaN and infinity are among the extremes, which need no further memory to find.
    extremes = torch.stack(torch.aminmax(images.detach().flatten(1), dim=1))
    finite = extremes.isfinite().all(0)
    if not finite.all():
        row = int((~finite).nonzero()[0])
        raise ValueError(
            f"{name} got an image with NaN or infinite pixels (number {row + 1} of "
            f"{len(images)}); the model or the VAE that made it overflowed, often cured by another "
            "VAE precision (--fp32-vae)."
        )


def check_prompts(name: str, prompts: Sequence[str]) -> None:
    """Raise ValueError for an empty prompt, where the reward compares images with prompts."""
    for row, prompt in enumerate(prompts):
        if not prompt.strip():
            raise ValueError(
                f"{name} compares an image with its prompt, but prompt {row + 1} of "
                f"{len(prompts)} is empty; write what the image should show."
            )


def warn_of_long_prompts(name: str, lengths: Sequence[int], limit: int) -> None:
    """Say that a tokenizer cut prompts of more than `limit` tokens, as the original does."""
    longer = sum(length > limit for length in lengths)
    if longer:
        logging.warning(
            "Calibri: %s reads the first %d tokens of a prompt; %d of %d prompts are longer.",
            name,
            limit,
            longer,
            len(lengths),
        )


DAMAGED = "its weights file may be damaged: download it again"


def check_scores(name: str, scores: Tensor, count: int, mend: str = DAMAGED) -> Tensor:
    """`scores` as they are; ValueError, with the `mend`, unless they are `count` finite numbers."""
    if not torch.is_tensor(scores) or scores.shape != (count,):
        shape = tuple(scores.shape) if torch.is_tensor(scores) else type(scores).__name__
        raise ValueError(
            f"{name} answered {shape} for {count} images; a reward gives one number per image."
        )
    wrong = int((~scores.detach().isfinite()).sum())
    if wrong:
        raise ValueError(
            f"{name} gave {wrong} of {count} images a score that is NaN or infinite; {mend}."
        )
    return scores
