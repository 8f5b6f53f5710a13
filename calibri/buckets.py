"""How many images each candidate gets: as many as were asked for, or what the pilot chooses."""

from __future__ import annotations

from .evaluation import Floats
from .pilot import PILOT_BUCKET, PILOT_GENERATIONS, Spread, images_for_candidate, measure_spread


class Buckets:
    """The bucket sizes of one run; `given` is 0 to have them chosen.

    Depends on the rewards of the pilot's generations and on nothing else, so a run that goes on
    from its journal chooses as it did.
    """

    def __init__(self, given: int) -> None:
        self._given = given
        self._first: list[Floats] = []
        self.size = given or PILOT_BUCKET
        """Of the next bucket."""
        self.drawn = 0
        """Samples of all buckets so far."""
        self.spread: Spread | None = None
        """What the pilot measured, once it is over; None too where one image says nothing."""

    def add(self, rewards: Floats) -> bool:
        """Count a generation's rewards [K, S]; whether they were the pilot's last."""
        self.drawn += rewards.shape[1]
        if len(self._first) == PILOT_GENERATIONS:
            return False
        self._first.append(rewards)
        if len(self._first) < PILOT_GENERATIONS:
            return False
        self.spread = measure_spread(self._first)
        if self.spread is not None and not self._given:
            self.size = images_for_candidate(self.spread)
        return True

    def samples(self, generations: int) -> int:
        """Samples in the buckets of so many generations, as far as their size is known."""
        first = min(generations, PILOT_GENERATIONS)
        return first * (self._given or PILOT_BUCKET) + (generations - first) * self.size
