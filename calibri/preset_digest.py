"""A name for a preset's coefficients that no file name, title or order of names changes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

import numpy as np

from .preset_metadata import Preset


def digest_of(preset: Preset) -> str:
    """16 hexadecimal digits of what a preset does: its coefficients, weights and guidance.

    Two presets of one digest draw the same pictures on the same model.
    """
    names = sorted(preset.members[0].coefficients) if preset.members else []
    head = [
        preset.family,
        sorted(preset.blocks.items()),
        preset.granularity,
        None if preset.guidance is None else asdict(preset.guidance),
        names,
    ]
    digest = hashlib.sha256(json.dumps(head).encode())
    for member in preset.members:
        values = [member.weight, *(member.coefficients[name] for name in names)]
        digest.update(np.array(values, dtype="<f4").tobytes())
    return digest.hexdigest()[:16]
