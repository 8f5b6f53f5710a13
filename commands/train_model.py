"""The model that `train` trains: new, of a named shape or of sizes of one's own, or a file's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from ..ahpa.autoencoder import Scaling
from ..ahpa.full_run import METADATA_KEY
from ..ahpa.full_subject import Conditions
from ..ahpa.sit import SIZES, SiT, SiTConfig
from ..ahpa.sit_file import is_sit, load_reference, read_config, reference_names
from ..demo.model import Flux, FluxConfig

SIT, DEMO = "sit", "demo"
_SIT_SHAPES = {f"{SIT}-{name.lower()}": config for name, config in SIZES.items()}
SHAPES = (*_SIT_SHAPES, DEMO)


@dataclass(frozen=True)
class Sizes:
    """Of a new model where they are not its shape's; 0 leaves the shape's."""

    hidden: int = 0
    depth: int = 0
    heads: int = 0
    patch: int = 0
    double_blocks: int = 0
    single_blocks: int = 0

    def given(self, *names: str) -> dict[str, int]:
        """Those of these names. Raises ValueError for one that is of the other shape."""
        known = {name: value for name, value in asdict(self).items() if value}
        other = [name for name in known if name not in names]
        if other:
            option = "--" + other[0].replace("_", "-")
            raise ValueError(f"{option} is no size of this shape: leave it out.")
        return known


@dataclass(frozen=True)
class ModelFile:
    """A checkpoint to go on from: its sizes, its tensors when they are asked for."""

    path: Path
    config: SiTConfig | FluxConfig
    told: Mapping[str, Any]  # what `train` wrote into its metadata

    @property
    def side(self) -> int | None:
        """Of the latents that the model takes; None where it takes any."""
        return self.config.side if isinstance(self.config, SiTConfig) else None

    @property
    def scaling(self) -> Scaling | None:
        """That of the latents it was trained on, where `train` wrote it."""
        held = self.told.get("latents")
        return None if held is None else Scaling(float(held["scale"]), float(held["shift"]))

    @property
    def classes(self) -> tuple[str, ...] | int | None:
        """Names, else the number of the classes that it knows; None for a model of texts."""
        names = self.told.get("classes")
        if names:
            return tuple(str(name) for name in names)
        return (self.config.classes or None) if isinstance(self.config, SiTConfig) else None


def read_model(path: Path, heads: int) -> ModelFile:
    """Look at a file. Raises ValueError for one that holds neither a SiT nor a model of the demo's
    shape.
    """
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            told = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(f"The model {path} cannot be read ({error}).") from error
    if is_sit(shapes):
        own = told.get("shape", {}).get("heads", 0)
        return ModelFile(path, read_config(shapes, heads or int(own)), told)
    if "img_in.weight" in shapes and "vector_in.in_layer.weight" in shapes:
        return ModelFile(path, _flux_config(shapes), told)
    raise ValueError(
        f"The model {path} is neither a SiT nor of the demo's shape (FLUX's names): give one of "
        "these, or none to begin anew."
    )


def make_model(
    shape: str | None,
    sizes: Sizes,
    file: ModelFile | None,
    channels: int,
    side: int,
    conditions: Conditions,
    classes: int,
    seed: int,
) -> SiT | Flux:
    """A new model with weights from the seed, or the file's. Raises ValueError in one sentence."""
    config = _config(shape, sizes, file, channels, side, conditions, classes)
    _check_told(config, conditions, classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: SiT | Flux
        if isinstance(config, SiTConfig):
            model = SiT(config)
        else:
            model = Flux(config)
            model.start_as_identity()
    if file is not None:
        _fill(model, file)
    return model


def names_of(model: SiT | Flux, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As its file has them: SiT's reference, or FLUX's."""
    return reference_names(model, weights) if isinstance(model, SiT) else dict(weights)


def _config(
    shape: str | None,
    sizes: Sizes,
    file: ModelFile | None,
    channels: int,
    side: int,
    conditions: Conditions,
    classes: int,
) -> SiTConfig | FluxConfig:
    if file is not None:
        _check_shape(shape, sizes, file)
        return file.config
    widths = conditions.widths
    if shape == DEMO:
        given = sizes.given("hidden", "double_blocks", "single_blocks")
        if given.get("hidden", 128) % 128:
            raise ValueError("--hidden of the demo's shape is a multiple of 128, as FLUX's is.")
        if len(widths) != 2 or classes:
            raise ValueError(
                "The demo's shape reads captions through the demo's text encoder: give captions "
                "and --demo, or a shape of SiT."
            )
        return FluxConfig(**given, channels=channels, context=widths[0], pooled=widths[1])
    if shape not in _SIT_SHAPES:
        raise ValueError(f"There is no shape {shape!r}: choose one of {', '.join(SHAPES)}.")
    return replace(
        _SIT_SHAPES[shape],
        **sizes.given("hidden", "depth", "heads", "patch"),
        channels=channels,
        side=side,
        classes=classes,
        pooled=0 if classes else widths[-1],
    )


def _check_shape(shape: str | None, sizes: Sizes, file: ModelFile) -> None:
    """Whether what is asked for is what the file holds."""
    fixed = asdict(file.config)
    asked = {name: value for name, value in asdict(sizes).items() if value}
    if shape in _SIT_SHAPES:
        asked = {name: getattr(_SIT_SHAPES[shape], name) for name in ("hidden", "depth")} | asked
    elif shape is not None and (shape != DEMO or isinstance(file.config, SiTConfig)):
        raise ValueError(f"{file.path} is of another shape than {shape!r}: leave --shape out.")
    for name, value in asked.items():
        if fixed.get(name) != value:
            raise ValueError(
                f"{file.path} has {name} {fixed.get(name, 'nowhere')} and {value} is asked for: "
                "leave --shape and sizes out."
            )


def _check_told(config: SiTConfig | FluxConfig, conditions: Conditions, classes: int) -> None:
    """Whether the model understands what it is told."""
    if isinstance(config, FluxConfig):
        expected = (config.context, config.pooled)
        if classes or expected != conditions.widths:
            raise ValueError(
                f"The model takes text encodings {expected} wide, and there are "
                f"{'classes' if classes else conditions.widths}: give captions, and the text "
                "encoder that it was trained with."
            )
    elif bool(config.classes) != bool(classes):
        raise ValueError(
            "The model was trained on "
            + ("classes and the folder has captions" if config.classes else "texts and not classes")
            + ": say --told classes or --told captions, or train anew."
        )
    elif not classes and conditions.widths[-1] != config.pooled:
        raise ValueError(
            f"The model takes pooled texts {config.pooled} wide and the text encoder gives "
            f"{conditions.widths[-1]}: give the one that it was trained with."
        )


def _fill(model: SiT | Flux, file: ModelFile) -> None:
    tensors = load_file(file.path)
    try:
        if isinstance(model, SiT):
            load_reference(model, tensors)
        else:
            model.load_state_dict({name: value.float() for name, value in tensors.items()})
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"The model {file.path} does not fit: {error}") from error


def _flux_config(shapes: Mapping[str, tuple[int, ...]]) -> FluxConfig:
    def count(container: str) -> int:
        return len({name.split(".")[1] for name in shapes if name.startswith(f"{container}.")})

    patch = FluxConfig().patch
    return FluxConfig(
        hidden=shapes["img_in.weight"][0],
        double_blocks=count("double_blocks"),
        single_blocks=count("single_blocks"),
        context=shapes["txt_in.weight"][1],
        pooled=shapes["vector_in.in_layer.weight"][1],
        channels=shapes["img_in.weight"][1] // patch**2,
    )
