"""Presets out of official checkpoints, and official checkpoints out of presets.

A checkpoint knows less than a preset: neither the model's name nor whether two members are an
ensemble or the two predictions of classifier-free guidance, which the official code has in its
configuration.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from .backbones import Backbone
from .coefficients import LOWER, UPPER, coefficient_space
from .official import (
    OfficialCheckpointError,
    OfficialLayout,
    as_run,
    coefficient_names,
    dead_indices,
    flatten,
    ignored_coefficients,
    read_layout,
    unflatten,
)
from .official_file import OfficialCheckpoint
from .preset_metadata import MAX_GUIDANCE, Guidance, Member, Preset
from .presets import describe_backbone, describe_members

AUTO, ENSEMBLE, CFG = "auto", "ensemble", "cfg"
MEMBERS = (AUTO, ENSEMBLE, CFG)

# The official code runs two members of these as classifier-free guidance, those of FLUX.1 (whose
# guidance is distilled) as an ensemble.
_WITH_CFG = ("sd3", "qwen-image")
# Its sum for Qwen-Image gets the norm of the prompt's prediction back.
_RESCALED = ("qwen-image",)


def preset_of_checkpoint(
    checkpoint: OfficialCheckpoint, members: str = AUTO, cfg: float | None = None
) -> Preset:
    """The preset that means what the checkpoint means in the official code.

    `members` is one of MEMBERS; "auto" goes by the family. `cfg` is the scale at which guidance
    began, the preset's at strength 0; None finds the one whose weights [g, 1 − g] are nearest.
    Raises OfficialCheckpointError where the members are said to be what they cannot be.
    """
    layout = read_layout(checkpoint.shapes)
    guided = members == CFG or (
        members == AUTO and layout.members == 2 and layout.family in _WITH_CFG
    )
    if guided and layout.members != 2:
        raise OfficialCheckpointError(
            f"The checkpoint has {layout.members} members but classifier-free guidance has two, "
            "one for the prompt and one for the negative prompt: let its members be an ensemble."
        )
    named, weights = unflatten(layout, checkpoint.solution)
    guidance = None
    if guided:
        rescale = layout.family in _RESCALED
        scale = _nearest_scale(weights, rescale) if cfg is None else cfg
        guidance = Guidance(scale, rescale)
    named, weights = as_run(layout, named, weights, guided)
    return Preset(
        family=layout.family,
        blocks=dict(layout.blocks),
        granularity=layout.granularity,
        members=tuple(
            Member(coefficients, weight)
            for coefficients, weight in zip(named, weights, strict=True)
        ),
        guidance=guidance,
        created=checkpoint.written,
    )


def fit_to_model(checkpoint: OfficialCheckpoint, preset: Preset, backbone: Backbone) -> Preset:
    """The checkpoint's preset on this model: checked against it, in its order of coefficients.

    Raises OfficialCheckpointError for a model of another family or with other blocks.
    """
    wanted = describe_backbone(preset.family, preset.blocks)
    found = describe_backbone(backbone.family, backbone.blocks)
    if wanted != found:
        raise OfficialCheckpointError(
            f"The checkpoint is for {wanted} but the model is {found}: load the model it was "
            "found on, or choose another checkpoint."
        )
    second = tuple(tap.index for tap in backbone.taps if tap.branch == "attention2")
    layout = read_layout(checkpoint.shapes, second)
    solution = unflatten(layout, checkpoint.solution)
    named, _ = as_run(layout, *solution, guided=preset.guidance is not None)
    space = coefficient_space(backbone, preset.granularity)
    members = tuple(
        replace(member, coefficients=space.named(space.vector(coefficients)))
        for member, coefficients in zip(preset.members, named, strict=True)
    )
    return replace(preset, members=members)


def labelled(
    preset: Preset,
    checkpoint: OfficialCheckpoint,
    file_name: str,
    title: str = "",
    base_model: str = "",
    licence: str = "",
) -> Preset:
    """With words for people: where it comes from, and what only the person who imports it knows."""
    step = "" if checkpoint.step is None else f", step {checkpoint.step}"
    return replace(
        preset,
        title=title or file_name.removesuffix(".json"),
        base_model=base_model,
        licence=licence,
        origin=f"{file_name} of Calibri's official code{step}",
    )


def checkpoint_of_preset(preset: Preset, drop_ignored: bool = False) -> OfficialCheckpoint:
    """The checkpoint with which the official code does what the preset does.

    Granularities that it has no vector for become its gates, which mean the same. `drop_ignored`
    lets coefficients go that it would not act on. Raises OfficialCheckpointError for those without
    it, and for what it cannot run.
    """
    layout = _layout_of(preset)
    members = [_at_layout(member.coefficients, layout) for member in preset.members]
    lost = [name for name in ignored_coefficients(layout) if any(m[name] != 1.0 for m in members)]
    if lost and not drop_ignored:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise OfficialCheckpointError(
            f"The official code ignores the preset's coefficient {lost[0]!r}{more}, because it "
            f"scales no MLP of {preset.family}, so its pictures would differ: allow dropping them, "
            "or keep the preset in Calibri's own format."
        )
    weights = [member.weight for member in preset.members]
    return OfficialCheckpoint(
        shapes=layout.shapes,
        solution=tuple(flatten(layout, members, weights)),
        step=0,
        timestamp=int(time.time()),
    )


def describe_checkpoint(checkpoint: OfficialCheckpoint, preset: Preset) -> str:
    """What was read, in sentences for the person who imports it."""
    layout = read_layout(checkpoint.shapes)
    model = describe_backbone(layout.family, layout.blocks)
    sentences = [f"{model}, by {layout.granularity}: {layout.total - layout.members} coefficients"]
    if dead := len(dead_indices(layout)):
        sentences[0] += f", {dead} of which do nothing in the official code and stay without effect"
    told = {
        "step": checkpoint.step,
        "best training reward": checkpoint.train_best,
        "mean training reward": checkpoint.train_mean,
        "validation reward": checkpoint.val,
    }
    if known := [f"{name} {value:.6g}" for name, value in told.items() if value is not None]:
        sentences.append(", ".join(known).capitalize())
    return f"{'. '.join(sentences)}. {describe_members(preset)}"


def _nearest_scale(weights: list[float], rescale: bool) -> float:
    """The g whose [g, 1 − g] is nearest to two weights."""
    prompt, negative = weights
    total = prompt + negative
    # Where the sum gets another norm anyway, only the weights' ratio counts.
    if rescale and total > 0.0:
        prompt, negative = prompt / total, negative / total
    return max(-MAX_GUIDANCE, min(MAX_GUIDANCE, (prompt + 1.0 - negative) / 2.0))


def _layout_of(preset: Preset) -> OfficialLayout:
    kinds = {"flux": {"double", "single"}, "sd3": {"joint"}, "qwen-image": {"block"}}
    if set(preset.blocks) != kinds.get(preset.family):
        raise OfficialCheckpointError(
            f"The preset is for {describe_backbone(preset.family, preset.blocks)}, which the "
            "official code does not know: export presets of flux, sd3 or qwen-image."
        )
    if preset.family == "sd3" and preset.granularity == "block":
        raise OfficialCheckpointError(
            "The preset is for sd3 by block, which does not say which blocks have a second "
            "attention as the official code needs it: export a preset by layer or gate."
        )
    count = len(preset.members)
    if preset.family == "flux":
        return OfficialLayout("flux", preset.granularity, count, preset.blocks)
    second = tuple(
        index
        for index in range(preset.blocks.get("joint", 0))
        if any(
            f"joint.{index}.attention2{stream}" in preset.members[0].coefficients
            for stream in ("", ".image")
        )
    )
    return OfficialLayout(preset.family, "gate", count, preset.blocks, second)


def _at_layout(coefficients: Mapping[str, float], layout: OfficialLayout) -> dict[str, float]:
    """The coefficients under the layout's names, where a coarser one stands for all its gates."""
    found, used = {}, set()
    for name in coefficient_names(layout):
        kind, index, *rest = name.split(".")
        # The gate's own, its layer's, its block's.
        names = [".".join((kind, index, *rest[:end])) for end in range(len(rest), -1, -1)]
        given = next((n for n in names if n in coefficients), None)
        if given is None:
            raise OfficialCheckpointError(
                f"The preset lacks the coefficient {name!r}, which the official code has for its "
                "blocks: export a preset that Calibri made."
            )
        value = coefficients[given]
        if not LOWER <= value <= UPPER:
            raise OfficialCheckpointError(
                f"The preset's coefficient {given!r} is {value}, outside {LOWER:g}…{UPPER:g}: "
                "bring it inside or take it back to 1."
            )
        used.add(given)
        found[name] = value
    if odd := sorted(coefficients.keys() - used):
        raise OfficialCheckpointError(
            f"The preset has the coefficient {odd[0]!r}, for which the official code has no place: "
            "export a preset that Calibri made."
        )
    return found
