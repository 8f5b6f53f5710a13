"""Small stand-ins for the published reward models: their tensors, pictures and prompts.

`experiments/record_rewards.py` puts them through the original packages and writes the numbers to
`reward_recordings.json`; `host/test_rewards_exact.py` puts them through ours. Needs only
numpy and torch, so that it runs in the originals' environment too.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

RECORDINGS = Path(__file__).parent / "reward_recordings.json"
PROMPTS = (
    "a small red circle left of a large blue square",
    "Un café très chic, Élan! — 3.5 m²",
    "  A   photo &amp; the CAT's t-shirt,   8k  ",
    "猫 on a sofa 🙂 unbelievablylongwordthatnobodyknows",
    "a castle " + "with a garden of white roses and tall towers " * 12,
)
SIZES = ((32, 32), (48, 40), (61, 47), (35, 100), (224, 160))
"""Height and width of each prompt's picture; the small networks see 32 × 32."""


def tensors(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """The same numbers for the same names and shapes, wherever they are made."""
    return {key: _tensor(key, shape) for key, shape in shapes.items()}


def _tensor(key: str, shape: list[int]) -> torch.Tensor:
    if not shape:
        return torch.tensor(2.5)
    numbers = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    if len(shape) > 1:
        numbers *= np.prod(shape[1:]) ** -0.5
    elif key.endswith("bias") or "embedding" in key:
        numbers *= 0.1
    else:
        numbers = 1 + 0.1 * numbers
    return torch.from_numpy(numbers.astype(np.float32))


def picture(height: int, width: int) -> np.ndarray:
    """Bytes [H, W, 3]: a pattern with edges, gradients and noise."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (3 + c)) * np.cos(y / (5 - c)) * 90 + 128 for c in range(3)]
    noise = np.random.default_rng(height * 1000 + width).normal(0, 12, (height, width, 3))
    block = 100 * ((x > width / 3) & (y < height / 2))[..., None]
    return (np.stack(waves, -1) + noise + block).clip(0, 255).astype(np.uint8)


def bert_vocabulary(file: Path) -> Path:
    """A vocabulary of bert-base-uncased's size with its special words, and few others."""
    words = [f"[unused{i}]" for i in range(30522)]
    words[0] = "[PAD]"
    words[100:104] = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(i) for i in range(33, 127) if not chr(i).isupper()] + ["²", "—", "猫"]
    known = "a red circle small left of blue square un cafe photo the cat castle with on and"
    new = [*letters, *(f"##{letter}" for letter in letters), *known.split()]
    new = list(dict.fromkeys(new))
    words[1000 : 1000 + len(new)] = new
    file.write_text("\n".join(words) + "\n", encoding="utf-8")
    return file


def recordings() -> dict[str, Any]:
    """By reward: `shapes` of the checkpoint's tensors, `scores`, and `gradient`."""
    found: dict[str, Any] = json.loads(RECORDINGS.read_text())
    return found
