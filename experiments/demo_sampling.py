"""The demo model without ComfyUI as an evaluator, and its held-out judgement by the checker.

ComfyUI's own sampler gives the same pictures (tests/host); this one starts in a second and is used
where many checkpoints and settings are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..calibri.backbones import read_backbone
from ..calibri.coefficients import CoefficientSpace, coefficient_space
from ..calibri.evaluation import Batch, Sample, samples
from ..calibri.taps import GainTaps
from ..demo.autoencoder import Autoencoder
from ..demo.checker import check
from ..demo.model import Flux
from ..demo.prompts import parse
from ..demo.reward import DemoReward
from ..demo.sampler import sample
from ..demo.text_encoder import TextEncoder, token_rows

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Setting:
    """How pictures are sampled."""

    steps: int
    cfg: float


class DemoEvaluator:
    """The demo model at one setting; satisfies `calibri.evaluation.Evaluator`."""

    def __init__(
        self,
        dit: Flux,
        text_encoder: TextEncoder,
        autoencoder: Autoencoder,
        reward: DemoReward,
        prompts: Sequence[str],
        setting: Setting,
        granularity: str = "gate",
    ) -> None:
        backbone = read_backbone(dit)
        self.space: CoefficientSpace = coefficient_space(backbone, granularity)
        self._dit, self._taps = dit, GainTaps(dit, backbone)
        self._autoencoder, self.reward = autoencoder, reward
        self.prompts, self.setting = list(prompts), setting
        with torch.no_grad():
            self._context, self._pooled = text_encoder(token_rows(self.prompts))
            self._negative = text_encoder(token_rows([""]))

    def plan(self, candidates: int, bucket: Sequence[Sample]) -> list[Batch]:
        """Whole candidates, about 64 pictures a batch."""
        pairs = [(c, p) for c in range(candidates) for p in range(len(bucket))]
        return [tuple(pairs[start : start + 64]) for start in range(0, len(pairs), 64)]

    @torch.no_grad()
    def draw(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample]) -> Tensor:
        """Pictures [B, H, W, 3] in 0…1."""
        rows = [bucket[position].prompt for _, position in batch]
        noise = torch.stack(
            [
                torch.randn(16, 8, 8, generator=torch.Generator().manual_seed(bucket[p].seed))
                for _, p in batch
            ]
        )
        gains = self.space.expand(vectors[[candidate for candidate, _ in batch]])
        with self._taps.scaled(torch.as_tensor(gains, dtype=torch.float32)):
            latents = sample(
                self._dit,
                noise,
                self._context[rows],
                self._pooled[rows],
                self.setting.steps,
                self.setting.cfg,
                self._negative,
            )
        with torch.autocast("cpu", torch.bfloat16):
            decoded = self._autoencoder.decode(latents)
        return decoded.float().clamp(0, 1).permute(0, 2, 3, 1)

    @torch.no_grad()
    def run(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample]) -> Floats:
        """Rewards [len(batch)]."""
        prompts = [self.prompts[bucket[position].prompt] for _, position in batch]
        rewards = self.reward.score(self.draw(batch, vectors, bucket), prompts)
        return np.asarray(rewards.double().numpy())

    def images(self, vectors: Floats, bucket: Sequence[Sample]) -> NDArray[np.uint8]:
        """Pictures [K, len(bucket), H, W, 3]."""
        drawn = [self.draw(batch, vectors, bucket) for batch in self.plan(len(vectors), bucket)]
        pictures = (torch.cat(drawn) * 255).round().byte().numpy()
        return np.asarray(pictures.reshape(len(vectors), len(bucket), *pictures.shape[1:]))


def judge(
    evaluator: DemoEvaluator, vector: Floats, seed: int, images_per_prompt: int = 1
) -> dict[str, Floats]:
    """Per picture of every prompt: reward, and the checker's facts, all_facts and fit."""
    rows = list(range(len(evaluator.prompts))) * images_per_prompt
    bucket = samples(seed, "judge", 0, rows)
    pictures = evaluator.images(vector[None], bucket)[0]
    return measure(evaluator.reward, pictures, [evaluator.prompts[row] for row in rows])


@torch.no_grad()
def measure(
    reward: DemoReward, pictures: NDArray[np.uint8], prompts: Sequence[str]
) -> dict[str, Floats]:
    """Of each picture [P, H, W, 3]: reward, and the checker's facts, all_facts and fit, all [P]."""
    verdicts = [check(p, parse(t)) for p, t in zip(pictures, prompts, strict=True)]
    rewards = reward.score(torch.from_numpy(pictures).float() / 255, prompts)
    return {
        "reward": np.asarray(rewards.double().numpy()),
        "facts": np.array([verdict.facts for verdict in verdicts]),
        "all_facts": np.array([verdict.all_facts for verdict in verdicts]),
        "fit": np.array([verdict.fit for verdict in verdicts]),
    }


def load_training_state(folder: Path, step: int | None) -> tuple[Flux, TextEncoder]:
    """A checkpoint of `demo/train_dit.py`: the averaged weights kept at `step`, or the newest."""
    if step is None:
        state = torch.load(folder / "dit.pt")["average"]
    else:
        state = torch.load(folder / f"dit-{step}.pt")
    dit, text_encoder = Flux(), TextEncoder()
    for name, module in (("dit", dit), ("text_encoder", text_encoder)):
        own = {k[len(name) + 1 :]: v for k, v in state.items() if k.startswith(name + ".")}
        module.load_state_dict(own)
        module.eval().requires_grad_(False)
    return dit, text_encoder
