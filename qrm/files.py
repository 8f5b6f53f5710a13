"""A QRM as one `.safetensors` file that is safe to open.

The file holds the module's parameters, float32, and in its metadata the JSON of `Header`: what the
module is, which model it is for and how it was trained. A file comes from a stranger: each field
must be there, of its type and bounded, and no other may be; the parameters must be those that the
header asks for, and nothing is allocated before that is known.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from torch import nn

from ..calibri.atomic_file import save_atomically
from ..calibri.presets import describe_backbone
from .config import QRMConfig
from .layout import Chunk, Layout, QRMError, Slot, read_layout
from .module import QRM

METADATA_KEY = "calibri_qrm"
SCHEMA_VERSION = 1
MAX_HEADER = 8 * 2**20  # bytes
MAX_TEXT = 1000  # characters of a field
MAX_TRAINING = 2**20  # bytes of the training record


@dataclass(frozen=True)
class QRMFile:
    """A trained module and where it comes from."""

    module: QRM
    title: str = ""
    base_model: str = ""  # the model's name, for people
    fingerprint: str = ""  # of the model it was trained on (`calibri.presets.fingerprint`)
    licence: str = ""
    created: str = ""  # ISO 8601
    training: Mapping[str, Any] = field(default_factory=dict)  # JSON: settings, losses, effect

    @property
    def family(self) -> str:
        """Of the models it is for."""
        return self.module.config.layout.family


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class _Chunk(_Strict):
    position: int = Field(ge=0, lt=64)
    stream: str = Field(max_length=64)
    branch: str = Field(max_length=64)
    role: Literal["shift", "scale", "gate"]


class _Slot(_Strict):
    module: str = Field(max_length=MAX_TEXT)
    kind: str = Field(max_length=64)
    index: int = Field(ge=0, lt=10_000)
    chunks: int = Field(ge=1, le=64)
    width: int = Field(ge=1, le=65_536)
    changed: tuple[_Chunk, ...] = Field(min_length=1, max_length=64)


class _Layout(_Strict):
    family: str = Field(max_length=64)
    blocks: dict[str, int] = Field(max_length=64)
    slots: tuple[_Slot, ...] = Field(min_length=1, max_length=10_000)
    linears: bool


class _Config(_Strict):
    layout: _Layout
    mode: Literal["add", "scale", "gates"]
    tokens: int = Field(ge=0, le=65_536)
    pooled: int = Field(ge=0, le=65_536)
    width: int = Field(ge=1, le=8192)
    layers: int = Field(ge=0, le=64)
    heads: int = Field(ge=1, le=128)
    compressed: int = Field(ge=1, le=1024)
    rank: int = Field(ge=1, le=4096)
    ratio: int = Field(ge=1, le=16)


class Header(_Strict):
    """The metadata's JSON."""

    schema_version: Literal[1] = Field(alias="schema")
    config: _Config
    title: str = Field(max_length=MAX_TEXT)
    base_model: str = Field(max_length=MAX_TEXT)
    fingerprint: str = Field(max_length=MAX_TEXT)
    licence: str = Field(max_length=MAX_TEXT)
    created: str = Field(max_length=MAX_TEXT)
    training: dict[str, JsonValue]


def save_qrm(path: str | os.PathLike[str], file: QRMFile) -> None:
    """Write `file` to `path`, completely or not at all.

    Raises QRMError for what `load_qrm` would refuse, FileExistsError where `path` exists, OSError
    where the disk is full or does not let us write.
    """
    path = Path(path)
    header = _header(file)
    state = {
        name: value.detach().to("cpu", torch.float32).contiguous()
        for name, value in file.module.state_dict().items()
    }
    for name, value in state.items():
        if not value.isfinite().all():
            raise QRMError(
                f"The QRM for {path} has numbers in {name} that are not finite: train it again "
                "with a smaller learning rate."
            )
    try:
        _module(_parsed(header), {name: tuple(value.shape) for name, value in state.items()})
    except (ValueError, TypeError) as error:
        raise QRMError(f"The QRM for {path} is not valid: {_words(error)}.") from error
    if path.exists():
        raise FileExistsError(f"The QRM {path} exists already: choose another name.")
    data = safetensors.torch.save(state, metadata={METADATA_KEY: header})
    save_atomically(path, data, "QRM")


def load_qrm(path: str | os.PathLike[str]) -> QRMFile:
    """Read a QRM file of any origin, onto the CPU. Raises QRMError for anything that should not be
    so.
    """
    path = Path(path)
    with _opened(path) as (opened, header, module):
        state = {name: opened.get_tensor(name) for name in module.state_dict()}
    if not all(bool(value.isfinite().all()) for value in state.values()):
        raise QRMError(
            f"The QRM {path} holds numbers that are not finite: download it again or choose "
            "another."
        )
    module.load_state_dict(state, assign=True)
    return QRMFile(
        module=module.eval().requires_grad_(False),
        title=header.title,
        base_model=header.base_model,
        fingerprint=header.fingerprint,
        licence=header.licence,
        created=header.created,
        training=header.training,
    )


def read_header(path: str | os.PathLike[str]) -> Header:
    """What a QRM file says of itself, checked as `load_qrm` does but for the parameters' values.
    Raises QRMError.
    """
    with _opened(Path(path)) as (_, header, _):
        return header


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Header, QRM]]:
    """The file, its header, and its module on the meta device. Raises QRMError for what is wrong
    with them, also while the file is read within it.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            header = _parsed((opened.metadata() or {}).get(METADATA_KEY))
            shapes = {}
            for name in opened.keys():  # noqa: SIM118
                found = opened.get_slice(name)
                if found.get_dtype() != "F32":
                    raise ValueError(f"{name[:MAX_TEXT]} is {found.get_dtype()}, not F32")
                shapes[name] = tuple(found.get_shape())
            yield opened, header, _module(header, shapes)
    except OSError as error:
        raise QRMError(
            f"The QRM {path} cannot be opened ({error.strerror or error}): "
            "check its name and folder."
        ) from error
    except safetensors.SafetensorError as error:
        raise QRMError(
            f"The QRM {path} is truncated or no .safetensors file ({error}): "
            "download it again or choose another."
        ) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise QRMError(
            f"The QRM {path} cannot be used: {_words(error)}; update Calibri or choose another QRM."
        ) from error


def check_qrm(file: QRMFile, model: nn.Module) -> None:
    """Raises QRMError where the diffusion model is not of the architecture the QRM was made for,
    UnknownBackboneError for a model of no known family.
    """
    config = file.module.config
    layout = read_layout(model).for_mode(config.mode)
    if layout == config.layout:
        return
    wanted = describe_backbone(config.layout.family, config.layout.blocks)
    found = describe_backbone(layout.family, layout.blocks)
    if wanted == found:
        raise QRMError(
            f"The QRM is for another {layout.family}, whose blocks have other widths or names than "
            "this model's: choose a QRM that was trained on this kind of model."
        )
    raise QRMError(
        f"The QRM is for {wanted} but the model is {found}: "
        "choose a QRM that was trained on this kind of model."
    )


def _header(file: QRMFile) -> str:
    """The JSON of a file's metadata. Raises QRMError for what is no JSON or too long."""
    words = {
        name: getattr(file, name)
        for name in ("title", "base_model", "fingerprint", "licence", "created")
    }
    try:
        training = json.dumps(dict(file.training), allow_nan=False)
        header = {
            "schema": SCHEMA_VERSION,
            "config": asdict(file.module.config),
            **words,
            "training": json.loads(training),
        }
        return json.dumps(header, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise QRMError(
            f"The QRM's training record is no JSON ({error}): leave out what is not."
        ) from error


def _parsed(text: str | None) -> Header:
    if text is None:
        raise ValueError("it is no QRM, it lacks the metadata of one")
    if len(text) > MAX_HEADER:
        raise ValueError("its metadata is longer than that of any QRM")
    header = Header.model_validate_json(text)
    if len(json.dumps(header.training)) > MAX_TRAINING:
        raise ValueError("its training record is too long")
    return header


def _module(header: Header, shapes: Mapping[str, tuple[int, ...]]) -> QRM:
    """The module of a header, on the meta device. ValueError where its parameters have not the
    names and `shapes` of the file's.
    """
    config = _config(header.config)
    with torch.device("meta"):
        module = QRM(config)
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    for name in sorted(wanted.keys() | shapes.keys()):
        if wanted.get(name) != shapes.get(name):
            said = str(shapes.get(name, "lacking"))[:MAX_TEXT]
            raise ValueError(
                f"its parameter {name[:MAX_TEXT]} is {said} where its header wants "
                f"{wanted.get(name, 'none')}"
            )
    return module


def _config(header: _Config) -> QRMConfig:
    if header.width % header.heads:
        raise ValueError(f"its width {header.width} is no multiple of its {header.heads} heads")
    slots = []
    for slot in header.layout.slots:
        chunks = tuple(Chunk(**chunk.model_dump()) for chunk in slot.changed)
        positions = [chunk.position for chunk in chunks]
        if positions != sorted(set(positions)) or positions[-1] >= slot.chunks:
            raise ValueError(f"the chunks of {slot.module} are not in order")
        slots.append(Slot(slot.module, slot.kind, slot.index, slot.chunks, slot.width, chunks))
    if len({slot.module for slot in slots}) != len(slots):
        raise ValueError("two of its slots have one module")
    layout = Layout(header.layout.family, header.layout.blocks, tuple(slots), header.layout.linears)
    sizes = header.model_dump(exclude={"layout"})
    return QRMConfig(layout=layout, **sizes)


def _words(error: Exception) -> str:
    """What is wrong, in a line: of pydantic's list, the first entry."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:MAX_TEXT]
        return f"{where or 'its metadata'}: {first['msg']}"
    return str(error)
