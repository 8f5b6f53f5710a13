"""Which files of ComfyUI's model folders a reward is made of.

Names are relative to `models/reward`, or begin with another folder's name: a CLIP may lie where
ComfyUI keeps its own. A workflow can name only what is in those folders.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import comfy
import folder_paths

from ..rewards import catalogue
from .folders import REWARDS

AUTO = "auto"
# A whole CLIP may be here too; the aesthetic predictor needs only what clip_vision has.
WITH_CLIP, WITH_IMAGE_TOWER = ("text_encoders",), ("clip_vision", "text_encoders")


def reward_files() -> list[str]:
    """Every weights file that Load Reward offers."""
    return listed(())


def listed(others: Sequence[str]) -> list[str]:
    """Files of models/reward by their names, and of the folders `others` as `<folder>/<name>`."""
    names = list(folder_paths.get_filename_list(REWARDS))
    for folder in others:
        names += [f"{folder}/{name}" for name in folder_paths.get_filename_list(folder)]
    return names


def chosen(entry: catalogue.Published, name: str, others: Sequence[str] = ()) -> Path:
    """The file `name`, or with "auto" the published one; ValueError that says where to get it."""
    found = entry.find(listed(others)) if name == AUTO else name
    path = None if found is None else _path(found, others)
    if path is None:
        missing = entry.missing(folder_paths.get_folder_paths(REWARDS)[0])
        if name != AUTO:
            missing = f"There is no {name!r} in ComfyUI's model folders. {missing}"
        raise ValueError(missing)
    return path


def bert_vocabulary(weights: Path) -> Path:
    """vocab.txt of bert-base-uncased, beside `weights` or in models/reward; ValueError without."""
    roots = [Path(root) for root in folder_paths.get_folder_paths(REWARDS)]
    places = [weights.parent, *(root / "bert-base-uncased" for root in roots), *roots]
    for place in places:
        if (place / "vocab.txt").is_file():
            return place / "vocab.txt"
    raise ValueError(
        f"ImageReward needs BERT's vocabulary: put vocab.txt (232 kB, Apache-2.0) from "
        f"{catalogue.BERT_SOURCE} into {roots[0] / 'bert-base-uncased'}."
    )


def clip_vocabulary() -> Path:
    """The folder with CLIP's vocab.json and merges.txt; they come with ComfyUI."""
    (comfy_folder,) = list(comfy.__path__)[:1]
    return Path(comfy_folder) / "sd1_tokenizer"


def _path(name: str, others: Sequence[str]) -> Path | None:
    for folder in others:
        if name.startswith(f"{folder}/"):
            found = folder_paths.get_full_path(folder, name.removeprefix(f"{folder}/"))
            return Path(found) if found else None
    found = folder_paths.get_full_path(REWARDS, name)
    suffixes = folder_paths.folder_names_and_paths[REWARDS][1]
    return Path(found) if found and Path(found).suffix.lower() in suffixes else None
