"""The cache of features: what is made is kept, nothing of another VAE is read, nothing half."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from comfyui_calibri.ahpa.feature_cache import (
    CacheKey,
    FeatureCache,
    FeatureCacheError,
    make_cache,
)
from comfyui_calibri.ahpa.projection import Projection

PICTURES, CHANNELS, TOKENS, WIDTH, SHARD = 10, (6, 5), 4, 3, 4
KEY = CacheKey(
    vae="a",
    pictures=tuple(f"picture {i}" for i in range(PICTURES)),
    levels=("7", "13"),
    grid=(2, 2),
    width=WIDTH,
)
ROWS = torch.arange(PICTURES)


class Vae:
    """Features of a picture depend on its number alone. It dies after `lives` batches."""

    def __init__(self, lives: int = 99, size: int = 3) -> None:
        self.lives, self.size = lives, size
        self.read: list[int] = []
        self.fitted = 0

    def features(self, number: int, channels: int) -> Tensor:
        g = torch.Generator().manual_seed(1000 * channels + number)
        return torch.randn(TOKENS, channels, generator=g)

    def batches(self, first: int) -> Iterator[list[Tensor]]:
        for start in range(first, PICTURES, self.size):
            if self.lives == 0:
                raise KeyboardInterrupt
            self.lives -= 1
            numbers = range(start, min(PICTURES, start + self.size))
            self.read += numbers
            yield [torch.stack([self.features(n, c) for n in numbers]) for c in CHANNELS]

    def projections(self) -> list[Projection]:
        self.fitted += 1
        torch.manual_seed(self.fitted)
        return [Projection(torch.zeros(c), torch.randn(c, WIDTH)) for c in CHANNELS]

    def make(self, folder: Path, key: CacheKey = KEY) -> FeatureCache:
        return make_cache(folder, key, self.batches, self.projections, SHARD)


def test_it_holds_the_projected_features_in_half_precision(tmp_path: Path) -> None:
    vae = Vae()
    cache = vae.make(tmp_path / "cache")
    assert len(cache) == PICTURES
    (first, second), expected = Vae().projections(), []
    for number in (7, 0, 7):
        levels = [first(vae.features(number, 6)), second(vae.features(number, 5))]
        expected.append(torch.stack(levels).half().float())
    assert torch.equal(cache[torch.tensor([7, 0, 7])], torch.stack(expected))
    assert vae.read == [*range(PICTURES)]


def test_what_is_whole_is_opened_without_the_vae(tmp_path: Path) -> None:
    made = Vae().make(tmp_path)
    idle = Vae(lives=0)
    assert torch.equal(idle.make(tmp_path)[ROWS], made[ROWS])
    assert (idle.read, idle.fitted) == ([], 0)


@pytest.mark.parametrize("lives", [0, 1, 2, 3])
def test_an_interrupted_one_goes_on_after_its_last_whole_shard(tmp_path: Path, lives: int) -> None:
    whole = Vae().make(tmp_path / "whole")
    killed = Vae(lives)
    with pytest.raises(KeyboardInterrupt):
        killed.make(tmp_path / "cache")
    again = Vae(size=2)
    cache = again.make(tmp_path / "cache")
    assert torch.equal(cache[ROWS], whole[ROWS])
    assert again.read[0] == 3 * lives // SHARD * SHARD
    assert again.fitted == 0  # the same directions throughout


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"vae": "b"}, "another VAE"),
        ({"pictures": KEY.pictures[1:]}, "other pictures or crops"),
        ({"levels": ("7", "12")}, "other levels"),
        ({"grid": (1, 1)}, "another token grid"),
        ({"width": 2, "vae": "b"}, "another VAE, another width"),
    ],
)
def test_a_cache_of_something_else_is_refused(
    tmp_path: Path, change: dict[str, object], named: str
) -> None:
    Vae().make(tmp_path)
    with pytest.raises(FeatureCacheError, match=f"the features of {named}: name another folder"):
        Vae().make(tmp_path, replace(KEY, **change))  # type: ignore[arg-type]


def test_damage_is_named(tmp_path: Path) -> None:
    Vae().make(tmp_path)
    (tmp_path / "00001.safetensors").write_bytes(b"cut")
    cache = Vae().make(tmp_path)
    assert cache[torch.tensor([0, 9])].shape == (2, 2, TOKENS, WIDTH)
    with pytest.raises(FeatureCacheError, match=r"00001.*cannot be read"):
        cache[torch.tensor([5])]
    (tmp_path / "index.json").write_text(json.dumps({"schema": 1}))
    with pytest.raises(FeatureCacheError, match="cannot be read"):
        Vae().make(tmp_path)


def test_a_vae_that_gives_too_few_is_named(tmp_path: Path) -> None:
    class Short(Vae):
        def batches(self, first: int) -> Iterator[list[Tensor]]:
            yield from list(super().batches(first))[:-1]

    with pytest.raises(FeatureCacheError, match="10 pictures were expected and 9 came"):
        Short().make(tmp_path)


def test_progress_is_told_from_where_it_goes_on(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with pytest.raises(KeyboardInterrupt):
        Vae(lives=2).make(tmp_path)
    vae = Vae()
    make_cache(
        tmp_path, KEY, vae.batches, vae.projections, SHARD, lambda done, of: told.append((done, of))
    )
    assert told == [(4, 10), (8, 10), (10, 10)]
