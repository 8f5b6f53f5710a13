"""Where the pack's files are: ComfyUI's folders, with the demo's added behind the user's own.

Nodes name files the way ComfyUI does, relative to these folders; nothing here leads outside them.
"""

from __future__ import annotations

import re
from pathlib import Path, PureWindowsPath

import folder_paths

PRESETS = "calibri"
QRMS = "qrm"
ROUTERS = "ahpa"
REWARDS = "reward"
REWARD_SUFFIXES = {".safetensors", ".pt", ".pth", ".bin"}
# Before the names of files that a node lists from two folders.
IN_INPUT, IN_MODELS = "input/", "models/calibri/"
DEMO_WEIGHTS = Path(__file__).resolve().parents[1] / "demo" / "weights"
DEMO_REWARD = DEMO_WEIGHTS / "reward" / "calibri-demo-reward.safetensors"


def register() -> None:
    """Make `models/calibri`, `models/qrm`, `models/ahpa` and `models/reward` known; the stock
    loaders see the demo's files.
    """
    for kind in (PRESETS, QRMS, ROUTERS):
        own = Path(folder_paths.models_dir) / kind
        folder_paths.add_model_folder_path(kind, str(own), is_default=True)
        paths, _ = folder_paths.folder_names_and_paths[kind]
        folder_paths.folder_names_and_paths[kind] = (paths, {".safetensors"})
    rewards = Path(folder_paths.models_dir) / REWARDS
    folder_paths.add_model_folder_path(REWARDS, str(rewards), is_default=True)
    paths, suffixes = folder_paths.folder_names_and_paths[REWARDS]
    # Another pack may have named the folder first.
    folder_paths.folder_names_and_paths[REWARDS] = (paths, set(suffixes) | REWARD_SUFFIXES)
    for folder in (PRESETS, QRMS, "diffusion_models", "vae", "text_encoders"):
        if (DEMO_WEIGHTS / folder).is_dir():
            folder_paths.add_model_folder_path(folder, str(DEMO_WEIGHTS / folder))


def preset_files() -> list[str]:
    """Presets by their names below `models/calibri`."""
    return folder_paths.get_filename_list(PRESETS)


def preset_path(name: str) -> Path:
    """The file of a preset; ValueError where there is none of that name."""
    return _named(PRESETS, name, "preset", "models/calibri; save")


def new_preset_path(prefix: str) -> Path:
    """A file name that is not taken yet, `<prefix>_00001.safetensors` in the user's folder.

    `prefix` may name a folder below models/calibri. Raises ValueError where it leads outside.
    """
    return _new_in(PRESETS, prefix)


def qrm_files() -> list[str]:
    """QRMs by their names below `models/qrm`."""
    return folder_paths.get_filename_list(QRMS)


def qrm_path(name: str) -> Path:
    """The file of a QRM; ValueError where there is none of that name."""
    return _named(QRMS, name, "QRM", "models/qrm; put")


def new_qrm_path(prefix: str) -> Path:
    """A file name that is not taken yet, `<prefix>_00001.safetensors` in the user's qrm folder.

    Raises ValueError where `prefix` leads outside.
    """
    return _new_in(QRMS, prefix)


def router_files() -> list[str]:
    """AHPA's routers by their names below `models/ahpa`."""
    return folder_paths.get_filename_list(ROUTERS)


def router_path(name: str) -> Path:
    """The file of a router; ValueError where there is none of that name."""
    return _named(ROUTERS, name, "router", "models/ahpa; put")


def new_router_path(prefix: str) -> Path:
    """A file name that is not taken yet, `<prefix>_00001.safetensors` in the user's ahpa folder.

    Raises ValueError where `prefix` leads outside.
    """
    return _new_in(ROUTERS, prefix)


def new_lora_path(prefix: str) -> Path:
    """A file name that is not taken yet, `<prefix>_00001.safetensors` in the user's loras folder.

    Raises ValueError where `prefix` leads outside.
    """
    return _new_in("loras", prefix)


def _named(kind: str, name: str, what: str, where: str) -> Path:
    path = folder_paths.get_full_path(kind, name)
    if path is None or Path(path).suffix != ".safetensors":
        raise ValueError(
            f"There is no {what} {name!r} in {where} one there and press R to refresh the list."
        )
    return Path(path)


def _new_in(kind: str, prefix: str) -> Path:
    folder = Path(folder_paths.get_folder_paths(kind)[0])
    return _next_number(folder / safe_name(prefix), ".safetensors", digits=5)


def checkpoint_files() -> list[str]:
    """JSON files that may be official checkpoints, as `checkpoint_path` takes them."""
    found = []
    roots = [(IN_MODELS, root) for root in folder_paths.get_folder_paths(PRESETS)]
    for prefix, root in [*roots, (IN_INPUT, folder_paths.get_input_directory())]:
        files, _ = folder_paths.recursive_search(root, excluded_dir_names=[".git"])
        found += [prefix + file.replace("\\", "/") for file in files]
    return sorted({name for name in found if name.lower().endswith(".json")})


def checkpoint_path(name: str) -> Path:
    """A JSON file below models/calibri or the input folder; ValueError where there is none."""
    candidates = []
    if name.startswith(IN_INPUT):
        candidates = [input_path(name.removeprefix(IN_INPUT))]
    elif name.startswith(IN_MODELS):
        below = name.removeprefix(IN_MODELS)
        if not _leads_out(below):
            candidates = [Path(root) / below for root in folder_paths.get_folder_paths(PRESETS)]
    for path in candidates:
        if path.suffix.lower() == ".json" and path.is_file():
            return path
    raise ValueError(
        f"There is no checkpoint {name!r}; put a .json file into models/calibri or ComfyUI's input "
        "folder and press R to refresh the list."
    )


def new_checkpoint_path(prefix: str) -> Path:
    """A file name that is not taken yet, `output/calibri/<prefix>_0001.json`.

    Raises ValueError where `prefix` leads elsewhere.
    """
    folder = Path(folder_paths.get_output_directory()) / "calibri"
    return _next_number(folder / safe_name(prefix), ".json", digits=4)


def make_folder(path: Path) -> None:
    """Make a folder for a file that is about to be saved."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            error.errno,
            f"The folder {path} could not be made ({error.strerror}): free some disk space or "
            "choose another prefix; nothing was saved.",
        ) from error


def make_new_folder(path: Path) -> Path:
    """Make a folder of this name, numbered where it is taken; its path."""
    make_folder(path.parent)
    folder, number = path, 2
    while True:
        try:
            folder.mkdir()
        except FileExistsError:
            folder, number = path.with_name(f"{path.name}-{number}"), number + 1
        else:
            return folder


def check_prefix(prefix: str | None) -> bool | str:
    """What validate_inputs answers for a file name's beginning: True, or what is wrong with it."""
    if prefix is None:  # linked; read when it is known
        return True
    try:
        safe_name(prefix)
    except ValueError as error:
        return str(error)
    return True


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
    leads_out = _leads_out(name)
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


def _leads_out(name: str) -> bool:
    """Whether a relative name is none, by its words alone and on every system."""
    windows = PureWindowsPath(name)
    return bool(windows.drive or windows.root) or ".." in re.split(r"[\\/]", name)


def _next_number(stem: Path, suffix: str, digits: int) -> Path:
    """`stem` with the number behind the highest one there is."""
    taken = re.compile(re.escape(stem.name) + r"_(\d+)" + re.escape(suffix))
    numbers = [
        int(found.group(1))
        for file in stem.parent.glob(f"*{suffix}")
        if (found := taken.fullmatch(file.name))
    ]
    return stem.with_name(f"{stem.name}_{max(numbers, default=0) + 1:0{digits}}{suffix}")
