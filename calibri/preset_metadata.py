"""What a preset says about itself, and its strict reading from JSON.

A preset file comes from a stranger: each field must be there, of its type, finite and of bounded
length, and no other field may be. `presets.py` does the file.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence, Sized
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from .coefficients import GRANULARITIES

SCHEMA_VERSION = 1
MAX_TEXT = 1000  # characters
MAX_ENTRIES = 64  # of sampling settings, rewards, kinds of block
MAX_BLOCKS = 10_000
MAX_MEMBERS = 64
# The paper's bounds for the weight of an ensemble's member are −10…10.
MAX_WEIGHT = 10.0
MAX_GUIDANCE = 100.0  # ComfyUI's own limit of cfg

Scalar = str | int | float | bool | None
T = TypeVar("T")
Entries = TypeVar("Entries", bound=Sized)


class MetadataError(ValueError):
    """A field is missing, unknown or wrong; the message says which, without the file's name."""


@dataclass(frozen=True)
class RewardChange:
    """One reward's mean on held-out prompts, with plain and with calibrated coefficients."""

    name: str
    before: float
    after: float
    low: float  # 95 % interval of after − before, paired over prompts
    high: float
    samples: int
    searched: bool  # whether the search raised this reward; False for a judge it never saw

    @property
    def rose(self) -> bool:
        """Whether it is higher than the plain model's beyond chance."""
        return self.low > 0

    @property
    def fell(self) -> bool:
        """Whether it is lower than the plain model's beyond chance."""
        return self.high < 0


@dataclass(frozen=True)
class HeldOut:
    """The prompts that a preset was measured on; whose they are stays with who made it."""

    count: int
    digest: str  # of their texts, to tell whether two presets were measured on the same ones


def held_out(prompts: Sequence[str]) -> HeldOut:
    """What a preset says of these prompts."""
    text = json.dumps(list(prompts), ensure_ascii=False)
    return HeldOut(len(prompts), hashlib.sha256(text.encode()).hexdigest()[:16])


@dataclass(frozen=True)
class Member:
    """One of the M calibrated models whose weighted sum predicts."""

    coefficients: Mapping[str, float]  # kept as float32, the precision in which they act
    weight: float = 1.0


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance of two members, whose weights stand in for the CFG scale.

    The first predicts with the prompt, the second with the negative prompt.
    """

    scale: float  # g: plain CFG, the preset at strength 0, has the weights [g, 1 − g]
    # Whether the sum gets the norm of the first prediction back, token by token (Qwen-Image).
    rescale: bool = False


@dataclass(frozen=True)
class Preset:
    """One calibration's coefficients and where they come from."""

    family: str
    blocks: Mapping[str, int]  # how many of each kind
    granularity: str
    members: tuple[Member, ...]  # M, all with the same names
    guidance: Guidance | None = None  # None: all members see the same conditioning
    title: str = ""
    base_model: str = ""  # the model's name, for people
    fingerprint: str = ""  # of the model it was found on
    licence: str = ""
    created: str = ""  # ISO 8601
    origin: str = ""  # of a preset that was made from another file: which, for people
    sampling: Mapping[str, Scalar] = field(default_factory=dict)  # sampler, steps, cfg …
    rewards: tuple[RewardChange, ...] = ()  # the searched one, and those that judged it
    # How far two images of one prompt lie apart (`diversity.py`), as if it were a reward.
    diversity: RewardChange | None = None
    prompts: HeldOut | None = None  # what `rewards` were measured on
    thumbnail: bytes = b""  # a JPEG, plain above calibrated; beside this JSON in the file

    @property
    def is_ensemble(self) -> bool:
        """Whether applying it is more than scaling one model's branches."""
        return len(self.members) != 1 or self.members[0].weight != 1.0


# A file without these fields is whole: they came later, and are written where they say something.
_OPTIONAL = {"guidance", "origin", "diversity", "prompts"}
_BESIDE = {"members", "thumbnail"}  # not in the JSON
_REQUIRED = {"schema", "coefficients", *Preset.__dataclass_fields__} - _BESIDE - _OPTIONAL


def preset_to_json(preset: Preset) -> str:
    """All but the coefficients' and weights' values and the picture; names keep their order."""
    header = {
        key: value
        for key, value in asdict(preset).items()
        if key not in _BESIDE and (key not in _OPTIONAL or value)
    }
    header["coefficients"] = list(preset.members[0].coefficients) if preset.members else []
    return json.dumps({"schema": SCHEMA_VERSION, **header})


def preset_from_json(
    text: str, values: NDArray[np.float32], weights: NDArray[np.float32]
) -> Preset:
    """The preset of a header, its coefficients [M, N] and weights [M]. Raises MetadataError."""
    try:
        header = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MetadataError(f"it is no JSON ({error})") from error
    header = _typed(header, dict, "the metadata")
    if header.get("schema") != SCHEMA_VERSION:
        raise MetadataError(
            f"its schema is {header.get('schema')!r} where this version of Calibri reads "
            f"{SCHEMA_VERSION}"
        )
    _check_keys(header, _REQUIRED, "the metadata", optional=_OPTIONAL)
    blocks = _short(_typed(header["blocks"], dict, "blocks"), "blocks")
    for kind, count in blocks.items():
        if not 1 <= _typed(count, int, f"blocks[{kind!r}]") <= MAX_BLOCKS:
            raise MetadataError(f"blocks[{kind!r}] is {count}")
    if header["granularity"] not in GRANULARITIES:
        raise MetadataError(f"granularity is {header['granularity']!r}")
    sampling = _short(_typed(header["sampling"], dict, "sampling"), "sampling")
    rewards = _short(_typed(header["rewards"], list, "rewards"), "rewards")
    members = _members(header["coefficients"], values, weights)
    return Preset(
        family=_text(header["family"], "family"),
        blocks={_text(kind, "blocks"): count for kind, count in blocks.items()},
        granularity=header["granularity"],
        members=members,
        guidance=_guidance(header["guidance"], members) if "guidance" in header else None,
        title=_text(header["title"], "title"),
        base_model=_text(header["base_model"], "base_model"),
        fingerprint=_text(header["fingerprint"], "fingerprint"),
        licence=_text(header["licence"], "licence"),
        created=_text(header["created"], "created"),
        origin=_text(header.get("origin", ""), "origin"),
        sampling={_text(key, "sampling"): _scalar(value, key) for key, value in sampling.items()},
        rewards=tuple(_reward(reward) for reward in rewards),
        diversity=_reward(header["diversity"]) if "diversity" in header else None,
        prompts=_held_out(header["prompts"]) if "prompts" in header else None,
    )


def _members(
    names: Any, values: NDArray[np.float32], weights: NDArray[np.float32]
) -> tuple[Member, ...]:
    names = _typed(names, list, "coefficients")
    for name in names:
        _text(name, "coefficients")
    if len(set(names)) != len(names) or not names:
        raise MetadataError("the names in coefficients are none or not all different")
    if values.dtype != np.float32 or values.ndim != 2 or values.shape[1] != len(names):
        raise MetadataError(
            f"its coefficients are {values.dtype} of shape {values.shape}, not float32 of shape "
            f"(members, {len(names)})"
        )
    if not 1 <= len(values) <= MAX_MEMBERS:
        raise MetadataError(f"it has {len(values)} members, not 1 to {MAX_MEMBERS}")
    if not np.isfinite(values).all():
        raise MetadataError("its coefficients are not all finite")
    if weights.dtype != np.float32 or weights.shape != values.shape[:1]:
        raise MetadataError("its weights must be float32, one for each member")
    # NaN fails the comparison too.
    if not (np.abs(weights) <= MAX_WEIGHT).all():
        raise MetadataError(f"its weights are not all within −{MAX_WEIGHT:g}…{MAX_WEIGHT:g}")
    return tuple(
        Member(dict(zip(names, row, strict=True)), weight)
        for row, weight in zip(values.tolist(), weights.tolist(), strict=True)
    )


def _guidance(guidance: Any, members: tuple[Member, ...]) -> Guidance:
    guidance = _typed(guidance, dict, "guidance")
    _check_keys(guidance, set(Guidance.__dataclass_fields__), "guidance")
    if len(members) != 2:
        raise MetadataError(f"it has guidance but {len(members)} members, which takes 2")
    scale = _number(guidance["scale"], "guidance.scale")
    if abs(scale) > MAX_GUIDANCE:
        raise MetadataError(f"guidance.scale is {scale:g}, beyond {MAX_GUIDANCE:g}")
    return Guidance(scale, _typed(guidance["rescale"], bool, "guidance.rescale"))


def _reward(reward: Any) -> RewardChange:
    reward = _typed(reward, dict, "rewards")
    _check_keys(reward, set(RewardChange.__dataclass_fields__), "rewards")
    return RewardChange(
        name=_text(reward["name"], "rewards.name"),
        before=_number(reward["before"], "rewards.before"),
        after=_number(reward["after"], "rewards.after"),
        low=_number(reward["low"], "rewards.low"),
        high=_number(reward["high"], "rewards.high"),
        samples=_typed(reward["samples"], int, "rewards.samples"),
        searched=_typed(reward["searched"], bool, "rewards.searched"),
    )


def _held_out(prompts: Any) -> HeldOut:
    prompts = _typed(prompts, dict, "prompts")
    _check_keys(prompts, set(HeldOut.__dataclass_fields__), "prompts")
    count = _typed(prompts["count"], int, "prompts.count")
    return HeldOut(count, _text(prompts["digest"], "prompts.digest"))


def _check_keys(
    found: Mapping[str, Any], required: set[str], where: str, optional: Collection[str] = ()
) -> None:
    lacking, unknown_keys = required - set(found), set(found) - required - set(optional)
    for problem, keys in (("lacks", lacking), ("has", unknown_keys)):
        if keys:
            unknown = "the unknown " if problem == "has" else ""
            raise MetadataError(f"{where} {problem} {unknown}{min(keys)[:MAX_TEXT]!r}")


def _typed(value: Any, kind: type[T], where: str) -> T:
    if type(value) is not kind:  # not isinstance: True is no 1
        raise MetadataError(f"{where} must be of type {kind.__name__}")
    return value


def _text(value: Any, where: str) -> str:
    text = _typed(value, str, where)
    if len(text) > MAX_TEXT:
        raise MetadataError(f"{where} is longer than {MAX_TEXT} characters")
    return text


def _number(value: Any, where: str) -> float:
    try:
        number = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:  # an integer of 400 digits
        number = math.inf
    if not math.isfinite(number):
        raise MetadataError(f"{where} must be a finite number")
    return number


def _scalar(value: Any, key: str) -> Scalar:
    where = f"sampling[{key!r}]"
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, where)
    number = _number(value, where)
    return value if isinstance(value, int) else number


def _short(entries: Entries, where: str) -> Entries:
    if len(entries) > MAX_ENTRIES:
        raise MetadataError(f"{where} has more than {MAX_ENTRIES} entries")
    return entries


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
