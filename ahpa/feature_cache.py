"""Features of many pictures on disk: shards of safetensors and an index, read by memory map.

A cache is for one VAE, one list of pictures with their crops, one choice of levels and one token
grid; its fingerprint says which. Making it can be interrupted at any time and goes on after the
last whole shard. A folder `NAME` holds `index.json` and `00000.safetensors`, `00001.safetensors` …
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..calibri.atomic_file import write_atomically
from .projection import Projection

SCHEMA = 1
INDEX = "index.json"
_PROJECTIONS = "projections.safetensors"


class FeatureCacheError(ValueError):
    """The folder holds no such cache, a cache of something else, or a damaged one."""


@dataclass(frozen=True)
class CacheKey:
    """What a cache was made of. Two runs that differ in any of it must not share one."""

    vae: str  # a fingerprint of its encoder's weights
    pictures: tuple[str, ...]  # one mark for each crop, such as a hash of its pixels
    levels: tuple[str, ...]  # module paths
    grid: tuple[int, int]
    width: int  # of the projected features

    @property
    def fingerprint(self) -> str:
        """Short, the same on every machine."""
        told = json.dumps(asdict(self), sort_keys=True).encode()
        return hashlib.sha256(told).hexdigest()[:32]

    def differs_from(self, about: dict[str, Any]) -> str:
        """In what the cache described by `about` differs: words for a sentence."""
        words = {
            "vae": "another VAE",
            "pictures": "other pictures or crops",
            "levels": "other levels",
            "grid": "another token grid",
            "width": "another width",
        }
        own = json.loads(json.dumps({**asdict(self), "pictures": _mark(self.pictures)}))
        found = [said for name, said in words.items() if about.get(name) != own[name]]
        return ", ".join(found) or "other settings"


def _mark(pictures: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(pictures).encode()).hexdigest()[:32]


class FeatureCache:
    """Features [N, L, T, D] in half precision, of which only what is asked for is read."""

    def __init__(self, folder: Path, count: int, shard: int) -> None:
        self.folder = folder
        self._count, self._shard = count, shard
        self._open: dict[int, Any] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Rows [B] of pictures → [B, L, T, D] in float32.

        Raises FeatureCacheError for a shard that is gone or cut off.
        """
        return torch.stack([self._row(int(row)) for row in rows])

    def _row(self, row: int) -> Tensor:
        if not 0 <= row < self._count:
            raise IndexError(f"Row {row} of a cache of {self._count} pictures.")
        number = row // self._shard
        if number not in self._open:
            path = self.folder / _shard_name(number)
            try:
                # Memory-mapped: the operating system keeps what is used, and no more.
                shard: Any = safe_open(path, "pt")
                self._open[number] = shard.get_slice("features")
            except (OSError, SafetensorError) as error:
                raise FeatureCacheError(
                    f"{path} cannot be read ({error}): delete the folder and let the features be "
                    "made again."
                ) from error
        out: Tensor = self._open[number][row % self._shard].float()
        return out


def make_cache(
    folder: Path,
    key: CacheKey,
    batches: Callable[[int], Iterator[list[Tensor]]],
    projections: Callable[[], Sequence[Projection]],
    shard: int = 256,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureCache:
    """The cache of `key` in `folder`: opened if it is whole, finished if it is not.

    `batches(first)` yields the levels' features, each [B, T, C], of the pictures from number
    `first` on; `projections` is asked once and kept. Each shard is whole or not there. Raises
    FeatureCacheError where the folder holds the cache of something else, and OSError where the disk
    is full; what was made before stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    total = len(key.pictures)
    about = _begin(folder, key, shard)
    shard = int(about["shard"])
    done = _whole_shards(folder, total, shard)
    progress(min(total, done * shard), total)
    if done * shard < total:
        used = _projections(folder, projections)
        rows: list[Tensor] = []
        for levels in batches(done * shard):
            projected = torch.stack([p(f) for p, f in zip(used, levels, strict=True)], dim=1)
            rows += projected.half().unbind(0)
            while len(rows) >= shard or (rows and done * shard + len(rows) >= total):
                last = min(shard, total - done * shard)
                _write(folder / _shard_name(done), rows[:last])
                rows, done = rows[last:], done + 1
                progress(min(total, done * shard), total)
        if done * shard < total:
            raise FeatureCacheError(
                f"Features of {total} pictures were expected and {done * shard + len(rows)} came."
            )
    return FeatureCache(folder, total, shard)


def _begin(folder: Path, key: CacheKey, shard: int) -> dict[str, Any]:
    index = folder / INDEX
    if not index.exists():
        about = {
            **asdict(key),
            "pictures": _mark(key.pictures),
            "schema": SCHEMA,
            "fingerprint": key.fingerprint,
            "shard": shard,
        }
        write_atomically(index, json.dumps(about, indent=1).encode())
        return about
    try:
        about = json.loads(index.read_text(encoding="utf-8"))
        known = about["schema"] == SCHEMA and int(about["shard"]) > 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FeatureCacheError(
            f"{index} cannot be read ({error}): name another folder, or delete this one."
        ) from error
    if not known or about.get("fingerprint") != key.fingerprint:
        raise FeatureCacheError(
            f"{folder} holds the features of {key.differs_from(about)}: name another folder, or "
            "delete this one."
        )
    return dict(about)


def _projections(folder: Path, make: Callable[[], Sequence[Projection]]) -> list[Projection]:
    """Those of the shards that are there already, or new ones: all shards have the same."""
    path = folder / _PROJECTIONS
    if not path.exists():
        named = {}
        for number, projection in enumerate(make()):
            named[f"{number:03}.mean"] = projection.mean.contiguous()
            named[f"{number:03}.directions"] = projection.directions.contiguous()
        write_atomically(path, save(named))
    try:
        with safe_open(path, "pt") as file:
            names = sorted(name for name in file.keys() if name.endswith(".mean"))  # noqa: SIM118
            return [
                Projection(
                    file.get_tensor(name), file.get_tensor(name.replace(".mean", ".directions"))
                )
                for name in names
            ]
    except (OSError, SafetensorError) as error:
        raise FeatureCacheError(
            f"{path} cannot be read ({error}): delete the folder and let the features be made "
            "again."
        ) from error


def _write(path: Path, rows: list[Tensor]) -> None:
    write_atomically(path, save({"features": torch.stack(rows).contiguous()}))


def _whole_shards(folder: Path, total: int, shard: int) -> int:
    """How many shards are there without a gap."""
    done = 0
    while done * shard < total and (folder / _shard_name(done)).is_file():
        done += 1
    return done


def _shard_name(number: int) -> str:
    return f"{number:05}.safetensors"
