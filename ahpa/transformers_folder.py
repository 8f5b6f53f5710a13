"""Encoders of texts and pictures from a folder of transformers; nothing is downloaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .targets import encoder_mark, tokens_on_grid

_BATCH = 32
_GREY = [0.5, 0.5, 0.5]


class EncoderError(ValueError):
    """The folder holds no encoder that can be used here."""


class ClipText:
    """A CLIP's text model: captions → its pooled vectors [P, D]."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Raises EncoderError in one sentence."""
        library = _library()
        try:
            self._tokenize = library.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = library.CLIPTextModel.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise EncoderError(
                f"{folder} holds no CLIP text encoder that can be read ({_first(error)}): give a "
                "folder as transformers saves one, with its tokenizer."
            ) from error
        self._model, self._device = model.to(device).eval(), device
        self.mark = encoder_mark(self._model, ())

    @torch.no_grad()
    def __call__(self, captions: list[str]) -> tuple[Tensor]:
        """One table of vectors, float32 on the CPU."""
        found = []
        for start in range(0, len(captions), _BATCH):
            told = self._tokenize(
                captions[start : start + _BATCH],
                padding="max_length",
                truncation=True,
                max_length=self._model.config.max_position_embeddings,
                return_tensors="pt",
            ).to(self._device)
            found.append(self._model(**told).pooler_output.float().cpu())
        return (torch.cat(found),)


class VisionFolder:
    """An image encoder such as DINOv2, CLIP or SigLIP: its last tokens, as REPA aligns to."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Raises EncoderError in one sentence."""
        library = _library()
        try:
            whole = library.AutoModel.from_pretrained(folder, local_files_only=True)
            file = folder / "preprocessor_config.json"
            told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise EncoderError(
                f"{folder} holds no image encoder that can be read ({_first(error)}): give a "
                "folder as transformers saves one."
            ) from error
        model: nn.Module = getattr(whole, "vision_model", whole)
        self._model, self._device = model.to(device).eval(), device
        self._side = _side(told, model.config)
        self._mean = torch.tensor(told.get("image_mean", _GREY)).view(3, 1, 1)
        self._deviation = torch.tensor(told.get("image_std", _GREY)).view(3, 1, 1)
        self.mark = encoder_mark(self._model, ())

    @torch.no_grad()
    def read(self, pictures: Tensor, grid: tuple[int, int]) -> list[Tensor]:
        """One level [B, rows * columns, C] of pictures [B, 3, H, W] in 0…1."""
        size = (self._side, self._side)
        seen = F.interpolate(pictures, size, mode="bicubic", antialias=True).clamp(0, 1)
        seen = (seen - self._mean.to(seen)) / self._deviation.to(seen)
        tokens: Tensor = self._model(pixel_values=seen.to(self._device)).last_hidden_state
        return [tokens_on_grid(tokens, grid)]


def _library() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise EncoderError(
            f"transformers cannot be imported ({error}): pip install 'comfyui-calibri[train]'."
        ) from error
    return transformers


def _side(told: Mapping[str, Any], config: Any) -> int:
    """Pixels of a side that the encoder sees, as its preprocessing says."""
    for name in ("crop_size", "size"):
        size = told.get(name)
        if isinstance(size, dict):
            size = size.get("height") or size.get("shortest_edge")
        if size:
            return int(size)
    return int(config.image_size)


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
