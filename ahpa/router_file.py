"""A trained router with what it was trained for, as one .safetensors file or in a workflow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..calibri.atomic_file import save_atomically
from .levels import Level
from .methods import LEVELS, METHODS, router_of

METADATA_KEY = "ahpa_router"
_SCHEMA = 1
_MOST_LEVELS, _WIDEST = 256, 65536  # a file that somebody sent may say anything


class RouterFileError(ValueError):
    """The file holds no router, or one of a newer version."""


@dataclass(frozen=True)
class TrainedRouter:
    """A router of one of `methods.METHODS` that learns, its levels, and how its training went."""

    method: str
    levels: tuple[Level, ...]
    hidden: int  # width of the aligned block's tokens
    router: nn.Module
    training: Mapping[str, Any]  # JSON: recipe, last losses, the model's name


def can_be_kept(method: str) -> bool:
    """Whether a method's router is one that says something: it was trained, on levels."""
    known = METHODS[method]
    return (
        known.target == LEVELS and not known.needs_router and method not in ("uniform", "by hand")
    )


def save_router(path: Path, trained: TrainedRouter) -> None:
    """Write the file. Raises FileExistsError for one that is there, OSError with what to do."""
    if path.exists():
        raise FileExistsError(f"{path} exists already: choose another name.")
    told = {
        "schema": _SCHEMA,
        "method": trained.method,
        "levels": [[level.module, level.stage] for level in trained.levels],
        "hidden": trained.hidden,
        "training": dict(trained.training),
    }
    weights = {
        name: value.detach().cpu().contiguous()
        for name, value in trained.router.state_dict().items()
    }
    data = save(weights, {METADATA_KEY: json.dumps(told, sort_keys=True)})
    save_atomically(path, data, "router")


def load_router(path: Path) -> TrainedRouter:
    """Read a file of `save_router`. Raises RouterFileError in one sentence."""
    try:
        with safe_open(path, "pt") as file:
            told = json.loads((file.metadata() or {})[METADATA_KEY])
            weights: dict[str, Tensor] = {
                name: file.get_tensor(name)
                for name in file.keys()  # noqa: SIM118
            }
        if told["schema"] != _SCHEMA:
            raise RouterFileError(
                f"{path} was written by another version of this pack: update it, or train anew."
            )
        levels = tuple(Level(str(module), int(stage)) for module, stage in told["levels"])
        method, hidden = str(told["method"]), int(told["hidden"])
        if not can_be_kept(method) or len(levels) > _MOST_LEVELS or hidden > _WIDEST:
            raise ValueError("of no method or of no size")
        router = router_of(method, levels, hidden)
        router.load_state_dict(weights)
    except RouterFileError:
        raise
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RouterFileError(
            f"{path} holds no router of AHPA: choose a file that a training with it has saved."
        ) from error
    return TrainedRouter(method, levels, hidden, router.eval(), dict(told["training"]))
