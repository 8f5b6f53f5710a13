"""What a calibration tells: each generation as it ends, the best so far, and what it recommends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .evaluation import Floats
from .judging import DIVERSITY, Judgement
from .pilot import Pilot
from .selection import Finalist, Interval
from .stopping import Prospect


@dataclass(frozen=True)
class GenerationSummary:
    """One generation: the spread of its candidates' mean rewards, and the mean it moved to."""

    generation: int
    generations: int
    mean: float
    std: float
    best: float
    worst: float
    sigma: float
    vector: Floats
    validation: float | None
    """Mean validation reward of `vector`, where this generation was validated."""
    seconds: float
    pilot: Pilot | None = None
    """From the last generation of the pilot on."""
    warning: str = ""
    """What it and those before say against the reward (`constant_reward.py`)."""


@dataclass(frozen=True)
class Best:
    """The mean that validation liked best so far; generations are named as in `Outcome`.

    A promise, not a result: it was chosen on the samples that `gain` is measured on, for which
    the interval makes allowance and the mean does not.
    """

    generation: int
    vector: Floats
    reward: float
    """Mean validation reward of `vector`."""
    plain: float
    """The plain model's on the same samples."""
    gain: Interval
    """Paired, over prompts."""


@dataclass(frozen=True)
class Outcome:
    """What a run recommends: `vector`, the search's mean after `generation`.

    Generation 0 is the identity: the search found nothing that led it clearly in the selection and
    was better in the confirmation too. START is the preset that it began
    at, where that was the best. `before`, `after` and the paired `gain` are mean rewards on
    confirmation samples, with intervals over prompts; the gain's makes allowance for `vector`
    having been chosen on the same prompts.
    """

    vector: Floats
    generation: int
    generations: int
    before: Interval
    after: Interval
    gain: Interval
    finalists: tuple[Finalist, ...]
    history: tuple[GenerationSummary, ...]
    """Every generation, those of earlier sessions included."""
    judgements: tuple[Judgement, ...] = ()
    """Of other rewards, and of diversity; none where the plain model is recommended."""
    failed_judges: Mapping[str, str] = field(default_factory=dict)
    """Judges that could not score, by name, and why."""
    kept_anyway: bool = False
    """Whether `vector` is the best of what was found, though not seen to beat the plain model."""
    pilot: Pilot | None = None
    """What the run was expected to cost and to gain, where it came so far."""
    stopped: Prospect | None = None
    """Why the search ended before its budget, where it did."""

    @property
    def diversity(self) -> Judgement | None:
        """How far the images of one prompt lie apart, where it was measured."""
        return next((found for found in self.judgements if found.name == DIVERSITY), None)
