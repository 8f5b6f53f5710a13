"""The small picture that a preset file carries: the first held-out prompts, plain and calibrated.

It stands in the file's metadata under the key of the ModelSpec standard, where ComfyUI's own model
library looks too.
"""

from __future__ import annotations

import base64
import binascii
from io import BytesIO

import numpy as np

from .before_after import Pictures, before_and_after

KEY = "modelspec.thumbnail"
MAX_BYTES = 64 * 2**10
_BEGINNING = "data:image/jpeg;base64,"
_COLUMNS = 3
_SIDE = 112  # pixels, the longer one of each picture
_QUALITY = 80
_JPEG = b"\xff\xd8\xff"


def draw_thumbnail(before: Pictures, after: Pictures) -> bytes:
    """A JPEG of the first three pictures [n, H, W, 3], the plain model's above, 10 kB or so."""
    from PIL import Image

    rows = [np.stack([_small(picture) for picture in row[:_COLUMNS]]) for row in (before, after)]
    data = BytesIO()
    Image.fromarray(before_and_after(*rows)).save(data, format="jpeg", quality=_QUALITY)
    return data.getvalue()


def thumbnail_to_text(picture: bytes) -> str:
    """A data URI, as ModelSpec asks for."""
    return _BEGINNING + base64.b64encode(picture).decode()


def thumbnail_from_text(text: str) -> bytes:
    """The JPEG of a data URI; empty for anything that is none: a preset needs no picture."""
    if not text.startswith(_BEGINNING) or len(text) > 2 * MAX_BYTES:
        return b""
    try:
        picture = base64.b64decode(text[len(_BEGINNING) :], validate=True)
    except (binascii.Error, ValueError):
        return b""
    return picture if picture.startswith(_JPEG) and len(picture) <= MAX_BYTES else b""


def _small(picture: Pictures) -> Pictures:
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    small: Pictures = np.asarray(image)
    return small
