"""LAION's aesthetic predictor: a small head on the image vector of OpenAI's ViT-L/14.

Both published heads are known: the MLP of the "improved" predictor (five linear layers without
nonlinearities between them) and the first one's single linear layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from . import pixels
from .batch import check_batch, check_scores
from .clip_towers import ClipTowers, load_image_tower
from .protocol import Card
from .weights_file import load_exactly, read_weights


class _Network(nn.Module):
    def __init__(self, towers: ClipTowers, head: nn.Module) -> None:
        super().__init__()
        self.towers = towers
        self.head = head


class Aesthetic:
    """How pleasing an image is, on the scale of people's votes from 1 to 10; reads no prompt."""

    name = "LAION aesthetic"
    differentiable = True
    card = Card(
        meaning="how pleasing the image is, whatever the prompt; votes from 1 to 10",
        typical=(4.5, 7.0),
        licence="Apache-2.0 (head), MIT (CLIP)",
        memory=1_220_000_000,
        size=224,
    )

    def __init__(self, towers: ClipTowers, head: nn.Module) -> None:
        self.network = _Network(towers, head)
        self._towers, self._head = towers, head

    @classmethod
    def load(cls, path: Path, clip: Path) -> Aesthetic:
        """Read the head from `path` and ViT-L/14's image tower from `clip`."""
        towers = load_image_tower(cls.name, clip)
        weights = read_weights(cls.name, path)
        head = _empty_head(weights)
        load_exactly(cls.name, path, head, weights)
        takes = next(p.shape[1] for p in head.parameters())
        gives: int = towers.clip.visual_projection.weight.shape[0]
        if takes != gives:
            raise ValueError(
                f"{cls.name}: the head {path.name} takes vectors of {takes} numbers but the CLIP "
                f"{clip.name} gives {gives}; use OpenAI's ViT-L/14."
            )
        return cls(towers, head)

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores [B] of images [B, H, W, 3] in 0..1; prompts are counted and not read."""
        check_batch(self.name, images, prompts)
        device = next(self.network.parameters()).device
        size = self._towers.image_size
        seen = pixels.centre_square(images.to(device), size, round_offset=True)
        scores = self._head(self._towers.image_vectors(pixels.normalised(seen)))
        return check_scores(self.name, scores.squeeze(-1), len(images))


def _empty_head(weights: dict[str, Tensor]) -> nn.Module:
    """A head on the meta device with room for `weights`."""
    with torch.device("meta"):
        if weights.keys() == {"weight", "bias"}:
            return nn.Linear(weights["weight"].shape[-1], 1)
        takes = weights["layers.0.weight"].shape[-1] if "layers.0.weight" in weights else 768
        # Dropout stands between the published layers, hence their numbers.
        linear = {0: (takes, 1024), 2: (1024, 128), 4: (128, 64), 6: (64, 16), 7: (16, 1)}
        layers = [nn.Linear(*linear[i]) if i in linear else nn.Identity() for i in range(8)]
        head = nn.Sequential()
        head.add_module("layers", nn.Sequential(*layers))
        return head
