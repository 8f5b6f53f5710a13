"""Where the pack's files are: ComfyUI's folders, with the demo's added behind the user's own.

Nodes name files the way ComfyUI does, relative to these folders; nothing here leads outside them.
"""

from __future__ import annotations

import re
from pathlib import Path, PureWindowsPath

import folder_paths

PRESETS = "calibri"
DEMO_WEIGHTS = Path(__file__).resolve().parents[1] / "demo" / "weights"
DEMO_REWARD = DEMO_WEIGHTS / "reward" / "calibri-demo-reward.safetensors"


def register() -> None:
    """Make `models/calibri` known, and let the stock loaders see the demo's files."""
    own = Path(folder_paths.models_dir) / PRESETS
    folder_paths.add_model_folder_path(PRESETS, str(own), is_default=True)
    paths, _ = folder_paths.folder_names_and_paths[PRESETS]
    folder_paths.folder_names_and_paths[PRESETS] = (paths, {".safetensors"})
    for folder in (PRESETS, "diffusion_models", "vae", "text_encoders"):
        if (DEMO_WEIGHTS / folder).is_dir():
            folder_paths.add_model_folder_path(folder, str(DEMO_WEIGHTS / folder))


def preset_files() -> list[str]:
    """Presets by their names below `models/calibri`."""
    return folder_paths.get_filename_list(PRESETS)


def preset_path(name: str) -> Path:
    """The file of a preset; ValueError where there is none of that name."""
    path = folder_paths.get_full_path(PRESETS, name)
    if path is None or Path(path).suffix != ".safetensors":
        raise ValueError(
            f"There is no preset {name!r} in models/calibri; "
            "save one there and press R to refresh the list."
        )
    return Path(path)


def new_preset_path(prefix: str) -> Path:
    """A file name that is not taken yet, `<prefix>_00001.safetensors` in the user's folder.

    `prefix` may name a folder below models/calibri. Raises ValueError where it leads outside.
    """
    folder = Path(folder_paths.get_folder_paths(PRESETS)[0])
    stem = folder / safe_name(prefix)
    taken = re.compile(re.escape(stem.name) + r"_(\d+)\.safetensors")
    numbers = [
        int(found.group(1))
        for file in stem.parent.glob("*.safetensors")
        if (found := taken.fullmatch(file.name))
    ]
    return stem.with_name(f"{stem.name}_{max(numbers, default=0) + 1:05}.safetensors")


def safe_name(name: str) -> Path:
    """`name` as a relative path of plain names; ValueError where nothing is left of it."""
    parts = [
        re.sub(r"[^\w.+-]+", "-", part).strip(".- ") for part in re.split(r"[\\/]", name.strip())
    ]
    if ".." in re.split(r"[\\/]", name) or not all(parts):
        raise ValueError(
            f"{name!r} cannot name a file; use letters, digits, '-' and '_', "
            "with '/' between folders, and no '..'."
        )
    return Path(*parts)


def input_path(name: str) -> Path:
    """A file below ComfyUI's input folder; ValueError for a path that leads out of it."""
    root = Path(folder_paths.get_input_directory()).resolve()
    # By its words first: on Windows, to resolve a network path is to connect to its server.
    windows = PureWindowsPath(name)
    leads_out = bool(windows.drive or windows.root) or ".." in re.split(r"[\\/]", name)
    path = root if leads_out else (root / name).resolve()
    if leads_out or not path.is_relative_to(root):
        raise ValueError(
            f"{name!r} lies outside ComfyUI's input folder; put the file there and name it "
            "relative to it."
        )
    return path


def input_text_files() -> list[str]:
    """Text files in ComfyUI's input folder and its subfolders, by their relative names."""
    root = Path(folder_paths.get_input_directory())
    files, _ = folder_paths.recursive_search(str(root), excluded_dir_names=[".git"])
    return sorted(file.replace("\\", "/") for file in files if file.lower().endswith(".txt"))


def text_encoder_files() -> list[str]:
    """Files in `text_encoders` that can be the demo's: no other text encoder is as small."""
    largest = 4 * 2**20
    found = []
    for name in folder_paths.get_filename_list("text_encoders"):
        path = folder_paths.get_full_path("text_encoders", name)
        if path and path.endswith(".safetensors") and Path(path).stat().st_size <= largest:
            found.append(name)
    return found
