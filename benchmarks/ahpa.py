"""What alignment costs a training step, and that it costs nothing afterwards.

    python -m comfyui_calibri.benchmarks.ahpa

Operations of one step (forward and backward) are counted at the size of SiT-B/2, where nothing is
computed: they are exact and the same on every machine. Times are of a SiT of the same depth, a
quarter as wide, on this machine: with cached features, with features made in the step, and how many
pictures' features a second come from the disk. Prints one JSON line each.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ..ahpa.feature_cache import CacheKey, FeatureCache, make_cache
from ..ahpa.features import FeatureReader
from ..ahpa.hidden import HiddenReader, chosen_block, read_blocks
from ..ahpa.levels import chosen_levels, read_levels
from ..ahpa.loss import AlignmentLoss, Projector
from ..ahpa.projection import Projection
from ..ahpa.router import DynamicRouter
from ..ahpa.sit import SIZES, SiT, SiTConfig
from ..experiments.ahpa_pictures import WIDTHS, Encoder
from .paired import cpu_clock, paired_ratio

WIDTH = 64  # of the whitened features
PICTURE = 256  # pixels of its side, of which a SiT's 32 x 32 latents are


class Step:
    """Training steps of a SiT with and without alignment, on one batch of random numbers."""

    def __init__(self, config: SiTConfig, batch: int, device: str) -> None:
        with torch.device(device):
            self.model = SiT(config)
            self.levels = chosen_levels(read_levels(Encoder()), "middle, deep")
            count, hidden = len(self.levels), config.hidden
            side = config.side // config.patch
            self.alignment = AlignmentLoss(
                Projector(hidden, count, WIDTH), DynamicRouter(self.levels)
            )
            self.x = torch.randn(batch, config.channels, config.side, config.side)
            self.t, self.y = torch.rand(batch), torch.zeros(batch, dtype=torch.long)
            self.features = torch.randn(batch, count, side * side, WIDTH)
        block = chosen_block(read_blocks(self.model), 0)
        self.reader = HiddenReader(self.model, block, side * side)
        self.grid = (side, side)

    def plain(self) -> None:
        """Flow matching alone."""
        F.mse_loss(self.model(self.x, self.t, self.y), self.x).backward()
        self.model.zero_grad()

    def aligned(self, features: Tensor | None = None) -> None:
        """With alignment to the features, or to those of the batch."""
        with self.reader:
            flow = F.mse_loss(self.model(self.x, self.t, self.y), self.x)
        given = self.features if features is None else features
        (flow + self.alignment(self.reader.tokens, given, self.t, 0).loss).backward()
        self.model.zero_grad()
        self.alignment.zero_grad()


def operations(size: str) -> dict[str, object]:
    """Counted, of one picture."""
    step = Step(SIZES[size], 1, "meta")
    found = {}
    for name, run in (("plain", step.plain), ("aligned", step.aligned)):
        with FlopCounterMode(display=False) as counter:
            run()
        found[name] = counter.get_total_flops()
    return {
        "benchmark": f"operations of a training step of SiT-{size}, aligned / plain",
        "ratio": round(found["aligned"] / found["plain"], 4),
        "plain_gigaflop": round(found["plain"] / 1e9, 1),
    }


def filled_cache(folder: Path, pictures: int, step: Step) -> FeatureCache:
    """A cache of random features of so many pictures."""
    levels = len(step.levels)
    tokens = step.grid[0] * step.grid[1]

    def batches(first: int) -> Iterator[list[Tensor]]:
        for _ in range(first, pictures):
            yield [torch.randn(1, tokens, WIDTH) for _ in range(levels)]

    key = CacheKey("none", tuple(map(str, range(pictures))), ("",) * levels, step.grid, WIDTH)

    def projections() -> list[Projection]:
        return [Projection(torch.zeros(WIDTH), torch.eye(WIDTH)) for _ in range(levels)]

    return make_cache(folder, key, batches, projections, shard=64)


def times(repeats: int, batch: int) -> Iterator[dict[str, object]]:
    """Measured, of a SiT a quarter as wide as B/2."""
    torch.manual_seed(0)
    step = Step(replace(SIZES["B/2"], hidden=192, heads=3), batch, "cpu")
    encoder = Encoder().eval().requires_grad_(False)
    reader = FeatureReader(encoder, step.levels, encoder)
    pictures = torch.rand(batch, 3, PICTURE, PICTURE)
    widths = [WIDTHS[level.stage] for level in step.levels]
    eyes = [Projection(torch.zeros(c), torch.eye(c, WIDTH)) for c in widths]
    with tempfile.TemporaryDirectory() as folder:
        cache = filled_cache(Path(folder), 128, step)

        def cached() -> None:
            step.aligned(cache[torch.randint(len(cache), (batch,))])

        def online() -> None:
            levels = reader.read(pictures, step.grid)
            parts = [p(level) for p, level in zip(eyes, levels, strict=True)]
            step.aligned(torch.stack(parts, dim=1))

        for name, other in (("cached features", cached), ("features made in the step", online)):
            ratio = paired_ratio(step.plain, other, repeats, clock=cpu_clock())
            yield {
                "benchmark": f"training step, {name} / plain",
                "ratio": round(ratio.median, 3),
                "interval": [round(ratio.low, 3), round(ratio.high, 3)],
                "plain_ms": round(ratio.plain_ms, 1),
                "batch": batch,
            }
        clock = cpu_clock()
        began, rows = clock(), 0
        while clock() - began < 1:
            rows += len(cache[torch.randint(len(cache), (batch,))])
        yield {
            "benchmark": "features read from the cache",
            "pictures_a_second": round(rows / (clock() - began)),
            "kilobytes_each": round(step.features[0].numel() * 2 / 1000),
        }


def inference() -> dict[str, object]:
    """What a sampler sees of a model that was trained with alignment: nothing of it."""
    step = Step(replace(SIZES["B/2"], hidden=48, heads=3), 1, "cpu")
    before = {name: value.shape for name, value in step.model.state_dict().items()}
    step.aligned()
    after = {name: value.shape for name, value in step.model.state_dict().items()}
    hooks = sum(len(module._forward_hooks) for module in step.model.modules())
    return {
        "benchmark": "at inference: the same parameters, the same graph",
        "same": before == after and hooks == 0,
    }


def main() -> None:
    """Count, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for size in SIZES:
        print(json.dumps(operations(size)), flush=True)
    print(json.dumps(inference()), flush=True)
    for told in times(options.repeats, options.batch):
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
