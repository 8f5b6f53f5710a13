"""A preset file as the routes tell of it."""

from __future__ import annotations

from dataclasses import asdict

from ...calibri.preset_digest import digest_of
from ...calibri.presets import Preset
from .schemas import Change, Summary, Whole
from .shelf import Place


def summary(place: Place, preset: Preset, fits: bool | None = None) -> Summary:
    """A preset but for its coefficients."""
    return Summary(
        name=place.name,
        digest=digest_of(preset),
        title=preset.title,
        family=preset.family,
        blocks=dict(preset.blocks),
        granularity=preset.granularity,
        members=len(preset.members),
        coefficients=len(preset.members[0].coefficients),
        guidance=None if preset.guidance is None else preset.guidance.scale,
        base_model=preset.base_model,
        fingerprint=preset.fingerprint,
        licence=preset.licence,
        created=preset.created,
        origin=preset.origin,
        sampling=dict(preset.sampling),
        rewards=[Change(**asdict(change)) for change in preset.rewards],
        diversity=None if preset.diversity is None else Change(**asdict(preset.diversity)),
        thumbnail=bool(preset.thumbnail),
        bytes=place.path.stat().st_size,
        yours=place.yours,
        fits=fits,
    )


def whole(place: Place, preset: Preset) -> Whole:
    """A preset with its coefficients."""
    names = list(preset.members[0].coefficients)
    return Whole(
        **dict(summary(place, preset)),
        names=names,
        values=[[member.coefficients[name] for name in names] for member in preset.members],
        weights=[member.weight for member in preset.members],
    )
