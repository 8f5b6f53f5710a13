"""The demo's text encoder as a CLIP that stock nodes encode with.

ComfyUI's CLIPLoader detects no text encoder as small as the demo's, so this builds `comfy.sd.CLIP`
around ComfyUI's own CLIP classes with the demo's vocabulary of words (`demo/text_encoder.py`).
"""

from __future__ import annotations

import inspect
import logging
from pathlib import Path
from typing import Any

import comfy.clip_model
import comfy.sd
import comfy.sd1_clip
import comfy.utils
import torch

from ..demo import text_encoder as demo
from ..demo.prompts import split_words

_NAME = "calibri_demo"
_CONFIG = {
    "num_hidden_layers": demo.LAYERS,
    "hidden_size": demo.WIDTH,
    "num_attention_heads": demo.HEADS,
    "intermediate_size": 4 * demo.WIDTH,
    "hidden_act": "gelu",
    "max_position_embeddings": demo.LENGTH,
    "eos_token_id": demo.EOS,
}


def load_text_encoder(path: Path) -> comfy.sd.CLIP:
    """Build the CLIP from a file of the demo's text encoder; ValueError for any other file."""
    try:
        weights = comfy.utils.load_torch_file(str(path), safe_load=True)
    except Exception as error:  # whatever the file's reader raises for a damaged file
        raise ValueError(
            f"{path.name} cannot be read as a safetensors file ({error}); fetch it again."
        ) from error
    with torch.device("meta"):
        expected = demo.TextEncoder().state_dict()
    if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in expected.items()}:
        raise ValueError(
            f"{path.name} is not the demo's text encoder; choose "
            "calibri-demo-text-encoder.safetensors, or load others with Load CLIP."
        )
    return _clip(weights)


def _clip(weights: dict[str, torch.Tensor]) -> comfy.sd.CLIP:
    target = _Target()
    # float32 wherever it runs: half precision would save 0.2 MB.
    options = {"dtype": torch.float32}
    parameters = comfy.utils.calculate_parameters(weights)
    if "state_dict" in inspect.signature(comfy.sd.CLIP.__init__).parameters:
        return comfy.sd.CLIP(
            target, parameters=parameters, state_dict=[weights], model_options=options
        )
    clip = comfy.sd.CLIP(target, parameters=parameters, model_options=options)
    clip.load_sd(weights)
    return clip


class _WordTokenizer:
    """What SDTokenizer asks of a tokenizer, over whole words."""

    @classmethod
    def from_pretrained(cls, path: str, **_: Any) -> _WordTokenizer:
        return cls()

    def __call__(self, text: str) -> dict[str, list[int]]:
        words = split_words(text)
        unknown = list(dict.fromkeys(word for word in words if word not in demo.IDS))
        if unknown:
            logging.warning(
                "Calibri's demo text encoder does not know: %s. It knows: %s.",
                ", ".join(unknown),
                ", ".join(word for word in demo.VOCABULARY if not word.startswith("<")),
            )
        return {"input_ids": [demo.BOS, *demo.tokenize(text), demo.EOS]}

    def get_vocab(self) -> dict[str, int]:
        return dict(demo.IDS)

    def decode(self, token_ids: list[int], skip_special_tokens: bool = True) -> str:
        words = (demo.VOCABULARY[token] for token in token_ids)
        return " ".join(w for w in words if not (skip_special_tokens and w.startswith("<")))


class _Tokenizer(comfy.sd1_clip.SDTokenizer):
    def __init__(
        self, embedding_directory: Any = None, tokenizer_data: dict[str, Any] | None = None
    ) -> None:
        super().__init__(
            max_length=demo.LENGTH,
            pad_with_end=False,
            pad_token=demo.PAD,
            embedding_directory=None,  # textual inversions have other widths
            embedding_size=demo.WIDTH,
            embedding_key=f"clip_{_NAME}",
            tokenizer_class=_WordTokenizer,
            tokenizer_data=tokenizer_data or {},
        )


class _ClipTokenizer(comfy.sd1_clip.SD1Tokenizer):
    def __init__(
        self, embedding_directory: Any = None, tokenizer_data: dict[str, Any] | None = None
    ) -> None:
        super().__init__(tokenizer_data=tokenizer_data or {}, clip_name=_NAME, tokenizer=_Tokenizer)


class _TextModel(comfy.clip_model.CLIPTextModel):
    """ComfyUI's CLIP text model with as many token embeddings as the demo has words."""

    def __init__(
        self, config_dict: dict[str, Any], dtype: torch.dtype, device: Any, operations: Any
    ) -> None:
        super().__init__(config_dict, dtype, device, operations)
        self.set_input_embeddings(
            operations.Embedding(len(demo.VOCABULARY), demo.WIDTH, dtype=dtype, device=device)
        )


class _EncoderModel(comfy.sd1_clip.SDClipModel):
    def __init__(
        self, device: Any = "cpu", dtype: Any = None, model_options: dict[str, Any] | None = None
    ) -> None:
        super().__init__(
            device=device,
            dtype=dtype,
            max_length=demo.LENGTH,
            textmodel_json_config=dict(_CONFIG),
            model_class=_TextModel,
            special_tokens={"start": demo.BOS, "end": demo.EOS, "pad": demo.PAD},
            model_options=model_options or {},
        )


class _ClipModel(comfy.sd1_clip.SD1ClipModel):
    def __init__(
        self, device: Any = "cpu", dtype: Any = None, model_options: dict[str, Any] | None = None
    ) -> None:
        super().__init__(
            device=device,
            dtype=dtype,
            model_options=model_options or {},
            clip_name=_NAME,
            clip_model=_EncoderModel,
        )


class _Target:
    """What comfy.sd.CLIP builds a text encoder from."""

    clip = _ClipModel
    tokenizer = _ClipTokenizer
    params: dict[str, Any] = {}  # noqa: RUF012 (ComfyUI copies it)
