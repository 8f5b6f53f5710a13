"""How much memory a training will take: an estimate, said before its first step."""

from __future__ import annotations

from dataclasses import dataclass

# Copies of the module's parameters: weights, gradient, Adam's two, the average, the best.
_COPIES = 6
# What one block keeps while it is computed again, in tensors [rows, tokens, hidden]: queries, keys,
# values, the attention's output and projection, an MLP four times as wide before and behind its
# activation, norms, sums, and copies of what blocks may write into.
_IN_BLOCK = 34
# Input and output of each block.
_PER_BLOCK = 2
# Bytes that a decoder of an SD, SD3 or FLUX VAE keeps for each pixel in two-byte numbers, counted
# with saved-tensor hooks on ComfyUI's class; as much again for the copies.
_PER_PIXEL = 2 * 12_209
_REWARD_ROW = 2**30


@dataclass(frozen=True)
class Job:
    """What is trained: bytes of frozen weights, sizes, and how many of what is kept at once.

    `decoded` is false where no loss needs a picture.
    """

    model_bytes: int
    vae_bytes: int
    reward_bytes: int
    module_parameters: int
    blocks: int
    hidden: int
    tokens: int  # of picture and prompt together
    pixels: int  # of one picture
    rows: int  # pictures at once
    backward_steps: int
    bytes_per_number: int = 2
    checkpointing: bool = True
    decoded: bool = True
    guided: bool = False  # by classifier-free guidance: two calls of the model


def estimate(job: Job) -> dict[str, int]:
    """Bytes by what they are for; their sum is the estimate. It is no measurement."""
    row = job.rows * job.tokens * job.hidden * job.bytes_per_number * (2 if job.guided else 1)
    kept = _PER_BLOCK * job.blocks if job.checkpointing else _IN_BLOCK * job.blocks
    pixel = _PER_PIXEL * job.bytes_per_number // 2
    return {
        "model": job.model_bytes,
        "VAE and reward": job.vae_bytes + job.reward_bytes,
        "module": 4 * _COPIES * job.module_parameters,
        "blocks": row * (kept * job.backward_steps + _IN_BLOCK),
        "decoding and scoring": job.rows * (job.pixels * pixel + _REWARD_ROW) if job.decoded else 0,
    }


def sentence(job: Job) -> str:
    """For people."""
    parts = estimate(job)
    gib = {name: value / 2**30 for name, value in parts.items()}
    said = ", ".join(f"{name} {value:.1f}" for name, value in gib.items() if value >= 0.05)
    return f"Training is estimated to take {sum(gib.values()):.1f} GiB ({said})."
