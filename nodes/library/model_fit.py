"""Which presets fit a model file, from the names and shapes in its header: no weight is read.

Exact as far as names and shapes tell families apart. Only .safetensors in ComfyUI's own layout can
be read so; for GGUF and the like the answer is that it is not known.
"""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ...calibri.model_file import ModelFileError, open_model_file
from ...calibri.presets import Preset, PresetError, check_preset

_KINDS = ("diffusion_models", "checkpoints")
_MOST_KEPT = 256

_known: dict[tuple[Path, int, str], bool] = {}


class UnreadableModelError(ValueError):
    """What presets fit a model file cannot be told; the message says why."""


class ModelAtHand:
    """A model's file, by the name that its loader node has."""

    def __init__(self, name: str) -> None:
        """Raises UnreadableModelError."""
        self.path = _path(name)
        self._changed = self.path.stat().st_mtime_ns

    def fits(self, preset: Preset) -> bool:
        """Whether Apply Calibri would take the preset for this model."""
        shape = f"{preset.family} {sorted(preset.blocks.items())} {preset.granularity} " + " ".join(
            sorted(preset.members[0].coefficients)
        )
        key = (self.path, self._changed, shape)
        if key not in _known:
            if len(_known) >= _MOST_KEPT:
                _known.clear()
            _known[key] = self._fits(preset)
        return _known[key]

    def _fits(self, preset: Preset) -> bool:
        try:
            with open_model_file(self.path, preset.family) as file:
                check_preset(preset, file.backbone)
        except (ModelFileError, PresetError):
            return False
        return True


def _path(name: str) -> Path:
    found = None
    if name.isprintable() and len(name) < 1000:
        for kind in _KINDS:
            found = found or folder_paths.get_full_path(kind, name)
    if found is None:
        raise UnreadableModelError(f"There is no model file {name[:200]!r}.")
    if not found.endswith(".safetensors"):
        raise UnreadableModelError(
            f"Of {name!r} it cannot be told: only .safetensors files say what is in them."
        )
    return Path(found)
