"""What a run that begins at a preset took over from it, for the text under its node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..calibri.presets import Preset
from ..calibri.siblings import describe_start
from .identity import fingerprint_of

if TYPE_CHECKING:
    from .calibration_inputs import Prepared


def with_start(text: str, start_from: Preset | None, prepared: Prepared) -> str:
    """`text` with a sentence on the start, where there was a preset to start from."""
    if start_from is None:
        return text
    mark = fingerprint_of(prepared.model)
    return f"{text} {describe_start(start_from, prepared.space.coefficients, mark)}"
