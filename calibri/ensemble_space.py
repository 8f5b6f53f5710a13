"""The members of an ensemble as one vector: what a calibration searches over.

M members have N coefficients and a weight each (section 3.4 of arXiv 2603.24800): D = M N + M
numbers, member by member, then the weights. One member without guidance has no weight to search,
and its space is that of its N coefficients. `warm_start.py` begins such a search at a preset.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .backbones import Backbone
from .coefficients import CoefficientError, CoefficientSpace, Vector
from .preset_metadata import MAX_WEIGHT, Guidance, Member

MAX_MEMBERS = 8  # each costs a forward in every step of every image


class EnsembleSpaceError(ValueError):
    """The members asked for, or the place to start from, cannot be searched."""


@dataclass(frozen=True, eq=False)
class EnsembleSpace:
    """The D coordinates of a search over M members; vectors are float64 [D].

    `identity` is the plain model: coefficients 1, weights 1, 0, 0 … or, with guidance at scale g,
    g and 1 − g. `start` is where the search begins: the plain model too, unless `warm`. `deviation`
    is each coordinate's initial standard deviation in units of the search's sigma.
    """

    coefficients: CoefficientSpace  # each member's
    members: int
    guidance: Guidance | None
    names: tuple[str, ...]
    lower: Vector
    upper: Vector
    identity: Vector
    deviation: Vector
    start: Vector
    warm: bool  # whether `start` is another model than the plain one

    @property
    def backbone(self) -> Backbone:
        return self.coefficients.backbone

    @property
    def granularity(self) -> str:
        return self.coefficients.granularity

    @property
    def has_weights(self) -> bool:
        """Whether members are summed; else there is one and it is the model."""
        return len(self.names) > len(self.coefficients.names)

    def expand(self, vectors: Vector) -> tuple[Vector, Vector | None]:
        """Gains [K, M, T] and weights [K, M] of vectors [K, D]; no weights where none are summed.

        Raises CoefficientError for vectors of another length.
        """
        if vectors.ndim != 2 or vectors.shape[1] != len(self.names):
            raise CoefficientError(
                f"The vectors have shape {vectors.shape} but this space has {len(self.names)} "
                f"coordinates: pass an array of shape (candidates, {len(self.names)})."
            )
        count = len(self.coefficients.names)
        weights = vectors[:, self.members * count :]
        rows = vectors[:, : self.members * count].reshape(len(vectors) * self.members, -1)
        gains = self.coefficients.expand(rows).reshape(len(vectors), self.members, -1)
        return gains, weights if self.has_weights else None

    def preset_members(self, vector: Vector) -> tuple[Member, ...]:
        """The members of a preset with this vector [D]."""
        count = len(self.coefficients.names)
        weights = vector[self.members * count :].tolist() if self.has_weights else [1.0]
        rows = vector[: self.members * count].reshape(self.members, count)
        return tuple(
            Member(self.coefficients.named(row), weight)
            for row, weight in zip(rows, weights, strict=True)
        )

    def record(self) -> dict[str, Any]:
        """What tells a run in this space from others, as JSON values."""
        record: dict[str, Any] = {
            "family": self.backbone.family,
            "granularity": self.granularity,
            "coefficients": list(self.names),
        }
        # A run of one member, from the plain model, is known without these.
        if self.members > 1:
            record["members"] = self.members
        if self.guidance is not None:
            record["guided_members"] = asdict(self.guidance)
        if self.warm:
            record["start"] = hashlib.sha256(self.start.tobytes()).hexdigest()[:32]
        return record


def ensemble_space(
    coefficients: CoefficientSpace,
    members: int = 1,
    guidance: Guidance | None = None,
    start: Vector | None = None,
) -> EnsembleSpace:
    """The space of M members with these coefficients each, searched from `start` [D].

    With `guidance` member 1 sees the prompt and member 2 the negative prompt. Without `start` the
    search begins at the plain model: M copies of it with the weight 1/M each, or with g and 1 − g.
    At the identity's own weights 1, 0, 0 … a reward says nothing about the coefficients of members
    without weight: on the toy of tests/unit/test_ensemble_search.py their search was that of one
    member at the price of M, and left 1.3 to 1.6 times the gap after 1,920 evaluations.

    **Deviations.** A weight moves the prediction as far as all of it reaches, a coefficient only by
    its branch's share. On the demo's trained FLUX (11 to 20 coefficients) moving all N coefficients
    independently by δ changes the prediction by 0.4 δ to 0.8 δ of its length, and one of them by
    1/√N of that; so a weight's deviation is 1/√N. On the toy with N = 57 anything from 0.05 to 0.25
    did well, and 1 (the branches') left 1.7 to 2.7 times the gap of 1/√57 = 0.13, in both profiles,
    with and without noise.

    Guided members are multiplied by g and 1 − g, whose sum is only 1: what they do not do alike is
    enlarged g times. Their coefficients' deviation is 1/√g, between 1 (best on the toy where the
    two members' best coefficients differ as much as they vary) and 1/g (where they hardly differ).

    Raises EnsembleSpaceError for what cannot be searched.
    """
    _check(members, guidance)
    count = len(coefficients.names)
    if members == 1 and guidance is None:
        plain = coefficients.identity
        return EnsembleSpace(
            coefficients=coefficients,
            members=1,
            guidance=None,
            names=coefficients.names,
            lower=coefficients.lower,
            upper=coefficients.upper,
            identity=plain,
            deviation=np.ones(count),
            start=plain if start is None else start,
            warm=start is not None and not np.array_equal(start, plain),
        )
    ones = np.tile(coefficients.identity, members)
    if guidance is None:
        identity = np.concatenate([ones, np.eye(members)[0]])
        cold = np.concatenate([ones, np.full(members, 1 / members)])
        spread = 1.0
    else:
        scale = guidance.scale
        identity = cold = np.concatenate([ones, [scale, 1 - scale]])
        spread = 1 / math.sqrt(scale)
    return EnsembleSpace(
        coefficients=coefficients,
        members=members,
        guidance=guidance,
        names=(
            *(f"member{m}.{name}" for m in range(1, members + 1) for name in coefficients.names),
            *(f"member{m}.weight" for m in range(1, members + 1)),
        ),
        lower=np.concatenate([np.tile(coefficients.lower, members), [-MAX_WEIGHT] * members]),
        upper=np.concatenate([np.tile(coefficients.upper, members), [MAX_WEIGHT] * members]),
        identity=identity,
        deviation=np.concatenate(
            [np.full(members * count, spread), np.full(members, 1 / math.sqrt(count))]
        ),
        start=cold if start is None else start,
        warm=start is not None and not np.array_equal(start, cold),
    )


def _check(members: int, guidance: Guidance | None) -> None:
    if not 1 <= members <= MAX_MEMBERS:
        raise EnsembleSpaceError(f"members is {members}: choose 1 to {MAX_MEMBERS}.")
    if guidance is None:
        return
    if members != 2:
        raise EnsembleSpaceError(
            f"members is {members} and guided members are always two, one for the prompt and one "
            "for the negative prompt: set members to 2, or turn guided members off."
        )
    if not 1 < guidance.scale <= MAX_WEIGHT:
        raise EnsembleSpaceError(
            f"cfg is {guidance.scale:g}, where guided members start from classifier-free guidance: "
            f"set cfg above 1 and to at most {MAX_WEIGHT:g}, or turn guided members off."
        )
