"""ComfyUI inside this process without its server: for the command line, benchmarks and evidence.

`start_comfyui` comes first: nothing of ComfyUI can be imported before it. ComfyUI has a module
`nodes` and this pack a folder of that name, so the pack's own folder must not be on `sys.path`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

    from ..rewards.protocol import Reward

PACK = Path(__file__).absolute().parents[1]
DEFAULT = Path.home() / "comfy" / "ComfyUI"  # comfy-cli's
DEMO = "demo"  # the name of the demo's reward
_DEMO_ENCODER = 4 * 2**20  # bytes; no other text encoder is as small


class HeadlessError(ValueError):
    """ComfyUI cannot be used in this process, or a file is not what it was given for."""


@dataclass(frozen=True)
class ModelFiles:
    """Where a model is. A checkpoint's parts give way to files that are named beside it."""

    checkpoint: Path | None = None
    diffusion_model: Path | None = None
    text_encoders: tuple[Path, ...] = ()
    text_encoder_type: str | None = (
        None  # as in CLIPLoader; None: what the model's family is called
    )
    vae: Path | None = None
    weight_dtype: str | None = None  # of `diffusion_model`, as in Load Diffusion Model


@dataclass(frozen=True)
class Pipeline:
    """What draws: as ComfyUI's loaders give it."""

    model: ModelPatcher
    clip: CLIP
    vae: VAE


def find_comfyui(named: Path | None = None) -> Path:
    """ComfyUI's folder: `named`, COMFYUI_PATH, the one this pack lies in, or comfy-cli's default.

    Raises HeadlessError where there is none.
    """
    variable = os.environ.get("COMFYUI_PATH")
    asked = named or (Path(variable) if variable else None)
    around = PACK.parents[1] if PACK.parent.name == "custom_nodes" else DEFAULT
    for folder in [asked] if asked else [around, DEFAULT]:
        if (folder / "main.py").is_file() and (folder / "comfy" / "sd.py").is_file():
            return folder.absolute()
    raise HeadlessError(
        f"There is no ComfyUI in {asked or DEFAULT}: name the folder of its main.py with --comfyui "
        "or in COMFYUI_PATH."
    )


def start_comfyui(
    comfyui: Path,
    cpu: bool | None = None,
    base: Path | None = None,
    user: Path | None = None,
    output: Path | None = None,
) -> None:
    """Make ComfyUI's modules importable in this process, once, with its model folders and ours.

    `cpu` None computes on the accelerator where there is one. For the folders see `open_folders`.
    Raises HeadlessError where this Python lacks what ComfyUI imports.
    """
    open_folders(comfyui, base, user, output)
    import_comfyui(comfyui, cpu)


def import_comfyui(comfyui: Path, cpu: bool | None = None) -> None:
    """The rest of `start_comfyui`, after `open_folders`."""
    with _importing(comfyui):
        from comfy.cli_args import args

        args.cpu = not _has_accelerator() if cpu is None else cpu
        import comfy_api.latest  # noqa: F401


def open_folders(
    comfyui: Path, base: Path | None = None, user: Path | None = None, output: Path | None = None
) -> None:
    """Make ComfyUI's folders known in this process, quickly: PyTorch is not imported.

    As ComfyUI's own options, `base` is where models, user, input and output folders are in the
    place of ComfyUI's, `user` and `output` say so of one. Raises HeadlessError as `start_comfyui`.
    """
    own = {PACK, PACK.resolve()}
    sys.path[:] = [entry for entry in sys.path if Path(entry or os.getcwd()).absolute() not in own]
    if str(comfyui) not in sys.path:
        sys.path.insert(0, str(comfyui))
    with _importing(comfyui):
        from comfy.cli_args import args

        if base is not None:
            args.base_directory = str(base)
        import folder_paths
    if user is not None:
        folder_paths.set_user_directory(str(user))
    if output is not None:
        folder_paths.set_output_directory(str(output))
    more = comfyui / "extra_model_paths.yaml"
    if base is None and more.is_file():
        from utils.extra_config import load_extra_path_config

        load_extra_path_config(str(more))
    from . import folders

    folders.register()


@contextmanager
def _importing(comfyui: Path) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise HeadlessError(
            f"ComfyUI in {comfyui} cannot be imported by {sys.executable} ({error}): run this with "
            "the Python that runs ComfyUI."
        ) from error


def load(files: ModelFiles) -> Pipeline:
    """The model of these files. Raises HeadlessError for a part that is missing or no model."""
    import comfy.sd

    model: Any = None
    clip: Any = None
    vae: Any = None
    if files.checkpoint is not None:
        model, clip, vae, _ = _read(
            "checkpoint",
            files.checkpoint,
            lambda path: comfy.sd.load_checkpoint_guess_config(
                path,
                output_vae=files.vae is None,
                output_clip=not files.text_encoders,
                embedding_directory=_embeddings(),
            ),
        )
    if files.diffusion_model is not None:
        options = _weight_options(files.weight_dtype)
        model = _read(
            "diffusion model",
            files.diffusion_model,
            lambda path: comfy.sd.load_diffusion_model(path, model_options=options),
        )
    if model is None:
        raise HeadlessError("There is no model: give --checkpoint, or --diffusion-model.")
    if files.text_encoders:
        clip = _text_encoder(model, files)
    if files.vae is not None:
        vae = load_vae(files.vae)
    for part, option in ((clip, "--text-encoder"), (vae, "--vae")):
        if part is None:
            raise HeadlessError(f"The model has no {option[2:].replace('-', ' ')}: give {option}.")
    return Pipeline(model, clip, vae)


def _weight_options(weight_dtype: str | None) -> dict[str, Any]:
    """What Load Diffusion Model makes of its weight_dtype."""
    import torch

    if not weight_dtype or weight_dtype == "default":
        return {}
    name = weight_dtype.removesuffix("_fast")
    if name not in ("fp8_e4m3fn", "fp8_e5m2"):
        raise HeadlessError(
            f"The weight dtype {weight_dtype!r} does not exist: choose default, fp8_e4m3fn, "
            "fp8_e4m3fn_fast or fp8_e5m2."
        )
    options: dict[str, Any] = {"dtype": getattr(torch, name.replace("fp8", "float8"))}
    return {**options, "fp8_optimizations": True} if name != weight_dtype else options


def reward_named(name: str) -> Reward:
    """A reward as a node loads it: "demo", a published one, or one that rewards.yaml declares.

    Raises ValueError for a name that is none, and where its files are missing.
    """
    from ..rewards import catalogue
    from .external_rewards import CalibriLoadExternalReward, rewards_file
    from .reward_files import AUTO
    from .rewards import CalibriDemoReward, CalibriLoadReward

    published = {kind.casefold(): kind for kind in catalogue.KINDS}
    if name.casefold() == DEMO:
        made = CalibriDemoReward.execute()
    elif name.casefold() in published:
        made = CalibriLoadReward.execute(published[name.casefold()], AUTO, AUTO)
    elif rewards_file().is_file():
        made = CalibriLoadExternalReward.execute(name)
    else:
        known = ", ".join((DEMO, *catalogue.KINDS))
        raise HeadlessError(
            f"There is no reward {name!r}: choose one of {known}, or declare it in "
            f"{rewards_file()}."
        )
    reward: Reward = made.result[0]
    return reward


def _text_encoder(model: ModelPatcher, files: ModelFiles) -> CLIP:
    import comfy.sd

    from .demo_clip import load_text_encoder
    from .patching import backbone_of

    first, named = files.text_encoders[0], files.text_encoder_type
    if len(files.text_encoders) == 1 and first.is_file() and first.stat().st_size <= _DEMO_ENCODER:
        return load_text_encoder(first)
    known = comfy.sd.CLIPType.__members__
    if named is not None and named.upper() not in known:
        raise HeadlessError(
            f"The text encoder type {named!r} does not exist: choose one of "
            f"{', '.join(sorted(known)).lower()}."
        )
    kind = (named or backbone_of(model).family).upper()
    paths = [str(path) for path in files.text_encoders]
    return _read(
        "text encoder",
        first,
        lambda _: comfy.sd.load_clip(
            paths,
            embedding_directory=_embeddings(),
            clip_type=known.get(kind, comfy.sd.CLIPType.STABLE_DIFFUSION),
        ),
    )


def load_vae(path: Path) -> VAE:
    """The VAE of a file. Raises HeadlessError where there is none."""
    return _read("VAE", path, _load_vae)


def _load_vae(path: str) -> VAE:
    import comfy.sd
    import comfy.utils

    weights, metadata = comfy.utils.load_torch_file(path, return_metadata=True)
    vae = comfy.sd.VAE(sd=weights, metadata=metadata)
    vae.throw_exception_if_invalid()
    return vae


def _read(part: str, path: Path, load_file: Any) -> Any:
    if not path.is_file():
        raise HeadlessError(f"The {part} {path} does not exist: check its name and folder.")
    try:
        return load_file(str(path))
    except Exception as error:  # whatever ComfyUI's loader raises for what it does not know
        raise HeadlessError(
            f"ComfyUI does not load the {part} {path} ({error}): choose a file that its own "
            f"{part} loader takes."
        ) from error


def _embeddings() -> Any:
    import folder_paths

    return folder_paths.get_folder_paths("embeddings")


def _has_accelerator() -> bool:
    import torch

    xpu = getattr(torch, "xpu", None)
    found = (torch.cuda.is_available(), torch.backends.mps.is_available())
    return any(found) or (xpu is not None and bool(xpu.is_available()))
