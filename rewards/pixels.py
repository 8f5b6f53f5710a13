"""Images as the networks were trained to see them, equal to the originals' preprocessing.

Most scorers resize a PIL picture: eight bits a channel, rounded after each pass. That is done here
with PIL itself, so a score equals the original's for the picture rounded to eight bits, as
diffusers rounds; ComfyUI's Save Image cuts off instead. Where gradients are asked for, the same
values come out, and the gradient is that of the smooth bicubic resize.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def centre_square(images: Tensor, size: int, *, round_offset: bool) -> Tensor:
    """Images [B, H, W, 3] in 0..1 → their middle [B, 3, size, size], short side scaled to `size`.

    `round_offset`: crop as torchvision does (an odd remainder's half rounds to even) and not as
    transformers does (down).
    """
    height, width = images.shape[1:3]
    short = min(height, width)
    rows, columns = int(size * height / short), int(size * width / short)
    if round_offset:
        top, left = round((rows - size) / 2), round((columns - size) / 2)
    else:
        top, left = (rows - size) // 2, (columns - size) // 2
    window = (slice(top, top + size), slice(left, left + size))
    bytes_ = (images.detach() * 255.0).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    cut = [_resized(picture, rows, columns)[window] for picture in bytes_]
    exact = torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).to(images.device).float() / 255.0
    if not images.requires_grad:
        return exact
    smooth = images.float().permute(0, 3, 1, 2)
    if (rows, columns) != (height, width):
        smooth = F.interpolate(smooth, (rows, columns), mode="bicubic", antialias=True)
    smooth = smooth[..., window[0], window[1]]
    return exact + (smooth - smooth.detach())


def whole_on_black(images: Tensor, size: int) -> Tensor:
    """Images [B, H, W, 3] → [B, 3, size, size]: long side scaled to `size`, the rest black.

    Floats are resized, not bytes: overshoot beyond 0..1 stays, as in the original.
    """
    # In steps of 1/255, as of a picture of bytes; the gradient passes through.
    steps = (images.detach().float() * 255.0).round().clamp(0, 255) / 255.0
    pictures = (steps + (images.float() - images.detach().float())).permute(0, 3, 1, 2)
    height, width = pictures.shape[-2:]
    scale = size / float(max(height, width))
    if scale == 1.0 and height == width:
        return pictures
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    if (rows, columns) != (height, width):
        pictures = F.interpolate(pictures, (rows, columns), mode="bicubic", antialias=True)
    top, left = (size - rows) // 2, (size - columns) // 2
    return F.pad(pictures, (left, size - columns - left, top, size - rows - top))


def normalised(pixels: Tensor) -> Tensor:
    """Pixels [B, 3, H, W] in 0..1 → CLIP's mean and deviation taken out."""
    mean = torch.tensor(CLIP_MEAN, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(CLIP_STD, device=pixels.device).view(3, 1, 1)
    return (pixels - mean) / std


def _resized(picture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    if picture.shape[:2] == (rows, columns):
        return picture
    resized = Image.fromarray(picture).resize((columns, rows), Image.Resampling.BICUBIC)
    return np.asarray(resized)
