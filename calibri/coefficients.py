"""Named coefficients, and how they group a backbone's taps.

Calibri's granularities (arXiv 2603.24800): "gate" gives every tap a coefficient of its own, "layer"
shares one between the image and text gates of a branch, "block" shares one between all gates of a
block. FLUX.1 has 114, 76 and 57 coefficients, SD3.5-medium 107, 61 and 24.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .backbones import Backbone, Tap

GRANULARITIES = ("block", "layer", "gate")

# The paper's bounds for a branch's coefficient.
LOWER = -1.0
UPPER = 2.0

Vector = NDArray[np.float64]


class CoefficientError(ValueError):
    """Coefficients do not fit their space."""


@dataclass(frozen=True, eq=False)
class CoefficientSpace:
    """N named coefficients that act on the T taps of a backbone.

    A vector is float64 [N] in the order of `names`; `identity`, all ones, is the plain model.
    """

    backbone: Backbone
    granularity: str
    names: tuple[str, ...]
    tap_index: tuple[int, ...]  # for each tap, the coefficient that scales it
    lower: Vector  # [N]
    upper: Vector  # [N]
    identity: Vector  # [N]

    def expand(self, vectors: Vector) -> Vector:
        """Each tap's gain: [K, N] -> [K, T], for K candidates."""
        if vectors.ndim != 2 or vectors.shape[1] != len(self.names):
            raise CoefficientError(
                f"The vectors have shape {vectors.shape} but this space has {len(self.names)} "
                f"coefficients: pass an array of shape (candidates, {len(self.names)})."
            )
        return vectors[:, list(self.tap_index)]

    def blend(self, vector: Vector, strength: float) -> Vector:
        """Between the identity (strength 0) and `vector` (strength 1), exact at both ends."""
        return (1.0 - strength) * self.identity + strength * vector

    def named(self, vector: Vector) -> dict[str, float]:
        """The vector [N] as name -> coefficient."""
        return dict(zip(self.names, vector.tolist(), strict=True))

    def vector(self, named: Mapping[str, float]) -> Vector:
        """The vector [N] of a mapping that names every coefficient once.

        Raises CoefficientError for a missing or unknown name and for a value out of bounds.
        """
        for found, expected, problem in (
            (set(self.names), named.keys(), "lacks"),
            (named.keys(), set(self.names), "does not know"),
        ):
            if odd := sorted(found - expected):
                more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
                whose = "The mapping" if problem == "lacks" else "This model"
                raise CoefficientError(
                    f"{whose} {problem} the coefficient {odd[0]!r}{more}: "
                    f"use coefficients of granularity {self.granularity!r} for this model."
                )
        vector = np.array([named[name] for name in self.names], dtype=np.float64)
        # NaN fails both comparisons, so it is caught here too.
        inside = (vector >= self.lower) & (vector <= self.upper)
        if not inside.all():
            i = int(np.argmin(inside))
            raise CoefficientError(
                f"The coefficient {self.names[i]!r} is {vector[i]}, outside "
                f"{self.lower[i]:g}…{self.upper[i]:g}: bring it inside or take it back to 1."
            )
        return vector


def coefficient_space(backbone: Backbone, granularity: str) -> CoefficientSpace:
    """The coefficients of a backbone at one of `GRANULARITIES`, in the order of its taps."""
    if granularity not in GRANULARITIES:
        raise CoefficientError(
            f"The granularity {granularity!r} does not exist: "
            f"choose one of {', '.join(GRANULARITIES)}."
        )
    index_of: dict[str, int] = {}
    tap_index = tuple(
        index_of.setdefault(_name(tap, granularity), len(index_of)) for tap in backbone.taps
    )
    count = len(index_of)
    return CoefficientSpace(
        backbone=backbone,
        granularity=granularity,
        names=tuple(index_of),
        tap_index=tap_index,
        lower=np.full(count, LOWER),
        upper=np.full(count, UPPER),
        identity=np.ones(count),
    )


def _name(tap: Tap, granularity: str) -> str:
    if granularity == "block":
        return f"{tap.block}.{tap.index}"
    if granularity == "layer":
        return f"{tap.block}.{tap.index}.{tap.branch}"
    return tap.name
