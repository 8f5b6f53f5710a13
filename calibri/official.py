"""The flat vectors of Calibri's official code, and which coefficient each number is.

The official code searches one vector that holds the coefficients of all M members of an ensemble,
then their M weights. Its order differs between FLUX.1, SD3 and Qwen-Image, and its checkpoints name
neither model nor granularity: both follow from the `shapes` beside the vector. `official_file.py`
reads and writes the checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .preset_metadata import MAX_BLOCKS, MAX_MEMBERS

_FLUX = {"total", "n_models", "doubles_main", "singles", "n_double", "n_single"}
_SD3 = {"total", "n_models", "main", "context", "attn2", "n_blocks", "n_context", "n_attn2"}
_QWEN = {"total", "n_models", "n_blocks"}
_BLOCKS = "blocks"  # the vector's length without its weights: of October 2025's Qwen-Image only


class OfficialCheckpointError(ValueError):
    """A checkpoint of the official code cannot be read, or a preset cannot become one."""


@dataclass(frozen=True)
class OfficialLayout:
    """What the `shapes` of an official checkpoint say."""

    family: str  # "flux", "sd3", "qwen-image", as our families are called
    granularity: str  # "block", "layer", "gate"
    members: int  # M
    blocks: Mapping[str, int]  # how many of each kind, as Backbone.blocks
    # SD3 only: the blocks that have one. `shapes` counts them; SD3.5's are its first blocks.
    second_attention_blocks: tuple[int, ...] = ()

    @property
    def second_attentions(self) -> int:
        """How many blocks have a second attention."""
        return len(self.second_attention_blocks)

    @property
    def total(self) -> int:
        """Length of the flat vector: the coefficients of all members, then M weights."""
        return self.members * (1 + sum(len(group) for group in _groups(self)))

    @property
    def shapes(self) -> dict[str, int]:
        """As a checkpoint holds them."""
        sizes = [self.members * len(group) for group in _groups(self)]
        shapes = {"n_models": self.members}
        if self.family == "flux":
            names = ["doubles_main", "singles"]
            if self.granularity == "gate":
                names.insert(1, "doubles_ctx")
            shapes |= {"n_double": self.blocks["double"], "n_single": self.blocks["single"]}
            shapes |= dict(zip(names, sizes, strict=True))
        elif self.family == "sd3":
            blocks = self.blocks["joint"]
            shapes |= {"n_blocks": blocks, "n_context": blocks - 1}
            shapes |= {"n_attn2": self.second_attentions}
            shapes |= dict(zip(("main", "context", "attn2"), sizes, strict=True))
        else:
            shapes |= {"n_blocks": self.blocks["block"]}
        return shapes | {"total": self.total}


@dataclass(frozen=True)
class _Slot:
    """One position of the flat vector, for one member."""

    name: str | None  # of our coefficient; None where we have none, for it could have no effect
    dead: bool = False  # without effect in the official code


def read_layout(
    shapes: Mapping[str, int], second_attention_blocks: Sequence[int] | None = None
) -> OfficialLayout:
    """The layout of a vector with these `shapes`.

    `second_attention_blocks` says which blocks of an SD3 have one, where they are not the first.
    Raises OfficialCheckpointError for the shapes of no official checkpoint, and for shapes that
    contradict themselves.
    """
    layout = _read_counts(shapes, second_attention_blocks)
    needed = layout.shapes
    if _BLOCKS in shapes:
        needed[_BLOCKS] = layout.total - layout.members
    for key, expected in needed.items():
        if shapes[key] != expected:
            raise OfficialCheckpointError(
                f"The checkpoint's shapes contradict themselves: {key} is {_shown(shapes[key])} "
                f"where its counts of members and blocks make {expected}; use the file as the "
                "official code wrote it."
            )
    return layout


def unflatten(
    layout: OfficialLayout, flat: Sequence[float]
) -> tuple[list[dict[str, float]], list[float]]:
    """Each member's coefficients by our names, and the weights.

    Means what it means in the official code: a coefficient without effect there is 1, whatever the
    vector holds. Raises OfficialCheckpointError where the vector's length is not `layout.total`.
    """
    if len(flat) != layout.total:
        raise OfficialCheckpointError(
            f"The checkpoint's solution has {len(flat)} numbers where its shapes need "
            f"{layout.total}; use the file as the official code wrote it."
        )
    members: list[dict[str, float]] = [{} for _ in range(layout.members)]
    for value, (member, slot) in zip(flat, _slots(layout), strict=False):
        if slot.name is not None:
            members[member][slot.name] = 1.0 if slot.dead else float(value)
    return members, [float(weight) for weight in flat[-layout.members :]]


def as_run(
    layout: OfficialLayout,
    members: Sequence[Mapping[str, float]],
    weights: Sequence[float],
    guided: bool,
) -> tuple[list[dict[str, float]], list[float]]:
    """Members and weights as they act in the official code, where a weight of exactly 0 is special.

    Of SD3 and Qwen-Image it runs the plain model, unweighted, in place of a member of guidance
    whose weight is 0, and where all the weights of an ensemble are: those come back as coefficients
    of 1 with the weight 1.
    """
    plain = dict.fromkeys(coefficient_names(layout), 1.0)
    found = [(dict(member), weight) for member, weight in zip(members, weights, strict=True)]
    if layout.family != "flux":
        if guided:
            found = [(m, w) if w != 0.0 else (plain, 1.0) for m, w in found]
        elif not any(weights):
            found[0] = (plain, 1.0)
    return [member for member, _ in found], [weight for _, weight in found]


def flatten(
    layout: OfficialLayout, members: Sequence[Mapping[str, float]], weights: Sequence[float]
) -> list[float]:
    """The official vector of members and weights; 1 where the official code reads nothing.

    Raises OfficialCheckpointError for another number of members, and for a coefficient that is
    missing or has no place in the layout.
    """
    if len(members) != layout.members or len(weights) != layout.members:
        raise OfficialCheckpointError(
            f"The layout has {layout.members} members but {len(members)} members and "
            f"{len(weights)} weights were given: give one of each for each member."
        )
    places = set(coefficient_names(layout))
    for number, member in enumerate(members):
        if odd := sorted(places ^ set(member)):
            problem = "lacks" if odd[0] in places else "has no place for"
            whose = f"Member {number}" if problem == "lacks" else "The official layout"
            raise OfficialCheckpointError(
                f"{whose} {problem} the coefficient {odd[0]!r}: give those of {layout.family} by "
                f"{layout.granularity}."
            )
    return [
        1.0 if slot.dead or slot.name is None else float(members[member][slot.name])
        for member, slot in _slots(layout)
    ] + [float(weight) for weight in weights]


def coefficient_names(layout: OfficialLayout) -> list[str]:
    """Our names of a member's coefficients, in the vector's order."""
    return [slot.name for group in _groups(layout) for slot in group if slot.name is not None]


def dead_indices(layout: OfficialLayout) -> list[int]:
    """Positions in the flat vector that have no effect in the official code."""
    return [index for index, (_, slot) in enumerate(_slots(layout)) if slot.dead]


def ignored_coefficients(layout: OfficialLayout) -> list[str]:
    """Our coefficients that have an effect here but none in the official code."""
    return [slot.name for group in _groups(layout) for slot in group if slot.dead and slot.name]


def _slots(layout: OfficialLayout) -> Iterator[tuple[int, _Slot]]:
    """(member, slot) of each position before the weights: group, then member, then block."""
    for group in _groups(layout):
        for member in range(layout.members):
            for slot in group:
                yield member, slot


def _groups(layout: OfficialLayout) -> list[list[_Slot]]:
    if layout.family == "flux":
        return _flux_groups(layout)
    if layout.family == "sd3":
        count = layout.blocks["joint"]
        return [
            _pairs("joint", range(count), ".image"),
            # The last block is pre-only: its text feeds the attention and ends there.
            _pairs("joint", range(count - 1), ".text"),
            [_Slot(f"joint.{i}.attention2.image") for i in layout.second_attention_blocks],
        ]
    return [_qwen_group(layout.blocks["block"])]


def _flux_groups(layout: OfficialLayout) -> list[list[_Slot]]:
    doubles, singles = range(layout.blocks["double"]), range(layout.blocks["single"])
    if layout.granularity == "block":
        return [
            [_Slot(f"double.{i}") for i in doubles],
            [_Slot(f"single.{i}") for i in singles],
        ]
    if layout.granularity == "layer":
        return [_pairs("double", doubles), [_Slot(f"single.{i}.fused") for i in singles]]
    return [
        _pairs("double", doubles, ".image"),
        _pairs("double", doubles, ".text"),
        [_Slot(f"single.{i}.fused.joint") for i in singles],
    ]


def _qwen_group(count: int) -> list[_Slot]:
    """Image attention, text attention, image MLP, text MLP of each block.

    The official code's hook on the MLPs expects a tuple, gets a tensor and leaves it as it is.
    Nothing reads the last block's text.
    """
    group = []
    for i in range(count):
        last = i == count - 1
        group += [
            _Slot(f"block.{i}.attention.image"),
            _Slot(None if last else f"block.{i}.attention.text", dead=last),
            _Slot(f"block.{i}.mlp.image", dead=True),
            _Slot(None if last else f"block.{i}.mlp.text", dead=True),
        ]
    return group


def _pairs(kind: str, blocks: range, stream: str = "") -> list[_Slot]:
    branches = ("attention", "mlp")
    return [_Slot(f"{kind}.{i}.{branch}{stream}") for i in blocks for branch in branches]


def _read_counts(shapes: Mapping[str, int], second: Sequence[int] | None) -> OfficialLayout:
    """The layout of the counts alone, the sizes still unchecked."""
    keys = set(shapes)
    if keys not in (_FLUX, _FLUX | {"doubles_ctx"}, _SD3, _QWEN, _QWEN | {_BLOCKS}):
        found = ", ".join(sorted(map(str, keys)))[:200] or "nothing"
        raise OfficialCheckpointError(
            f"The checkpoint's shapes ({found}) are those of no model of the official code: use a "
            "checkpoint of FLUX.1, SD3 or Qwen-Image."
        )
    members = _count(shapes, "n_models", 1, MAX_MEMBERS)
    if keys - {_BLOCKS} == _QWEN:
        blocks = {"block": _count(shapes, "n_blocks", 1, MAX_BLOCKS)}
        return OfficialLayout("qwen-image", "gate", members, blocks)
    if keys == _SD3:
        blocks = {"joint": _count(shapes, "n_blocks", 1, MAX_BLOCKS)}
        expected = _count(shapes, "n_attn2", 0, blocks["joint"])
        found_second = tuple(range(expected)) if second is None else tuple(second)
        if len(found_second) != expected:
            raise OfficialCheckpointError(
                f"The checkpoint is for an SD3 with a second attention in {expected} blocks but "
                f"the model has {len(found_second)} of them: use the model it was found on."
            )
        return OfficialLayout("sd3", "gate", members, blocks, found_second)
    blocks = {
        "double": _count(shapes, "n_double", 1, MAX_BLOCKS),
        "single": _count(shapes, "n_single", 1, MAX_BLOCKS),
    }
    if "doubles_ctx" in keys:
        granularity = "gate"
    else:
        per_block = shapes["doubles_main"] == members * blocks["double"]
        granularity = "block" if per_block else "layer"
    return OfficialLayout("flux", granularity, members, blocks)


def _count(shapes: Mapping[str, int], key: str, lowest: int, highest: int) -> int:
    value = shapes[key]
    if type(value) is not int or not lowest <= value <= highest:  # not isinstance: True is no 1
        raise OfficialCheckpointError(
            f"The checkpoint's shapes have {key} = {_shown(value)}, not a whole number from "
            f"{lowest} to {highest}: use the file as the official code wrote it."
        )
    return value


def _shown(value: object) -> str:
    return repr(value)[:40]
