"""What a finished run may claim, in words: a gain or none, and what judges have against it."""

from __future__ import annotations

from .constant_reward import alike
from .judging import DIVERSITY, Judgement
from .outcome import Outcome
from .selection import START, Interval

INTERVAL = "95 % interval"


def verdict(outcome: Outcome, reward: str, prompts: int) -> str:
    """Whether the choice is better than the plain model by `reward`, on `prompts` held-out ones."""
    measured = f"{reward} on {prompts} held-out prompts: {outcome.before.mean:.4g} plain"
    if outcome.generation == 0:
        return (
            f"Nothing that {outcome.generations} generations found was better than the plain model "
            f"({measured})."
        )
    gain = f"gain {_signed(outcome.gain)}"
    found = f"from generation {outcome.generation} of {outcome.generations}"
    if outcome.generation == START:
        found = f"the preset it began at, which {outcome.generations} generations did not better"
    said = f"{measured}, {outcome.after.mean:.4g} calibrated, {gain}, {found}."
    if outcome.kept_anyway:
        return (
            f"{said} It was not seen to be better than the plain model; it is the best of what the "
            "search found, kept because keep_anyway is on."
        )
    if not outcome.gain.low > 0:
        return f"{said} No gain was shown: the interval is not above 0."
    return said


def objections(outcome: Outcome, reward: str) -> list[str]:
    """What speaks against the choice: other rewards and the pictures' diversity, beyond chance.

    Where the plain model is recommended, that the reward told no candidates apart.
    """
    if outcome.generation == 0:
        warning = alike(reward, outcome.history)
        return [warning] if warning else []
    rewards = [found for found in outcome.judgements if found.name != DIVERSITY]
    said = []
    if fallen := [found for found in rewards if found.change.high < 0]:
        fell = " and ".join(f"{found.name} fell by {_fall(found)}" for found in fallen)
        advice = f", and {reward} was not seen to rise"
        if outcome.gain.low > 0:
            advice = (
                f" while {reward} rose: the preset may exploit {reward} rather than draw better "
                "pictures"
            )
        said.append(f"{fell}{advice}. Compare the pictures.")
    if (spread := outcome.diversity) is not None and spread.change.high < 0:
        said.append(
            f"Pictures of one prompt are more alike than the plain model's: their diversity fell "
            f"from {spread.before.mean:.3g} to {spread.after.mean:.3g} "
            f"({INTERVAL} of the change {_ends(spread.change)})."
        )
    return said


def judged(outcome: Outcome) -> list[str]:
    """How other rewards changed, each in a sentence without a verdict, and which did not judge."""
    changed = [
        f"{found.name}: {found.before.mean:.4g} plain, {found.after.mean:.4g} calibrated, change "
        f"{_signed(found.change)}."
        for found in outcome.judgements
    ]
    return changed + [
        f"{name} did not judge the result: {why.rstrip('.')}. Mend that and queue again, or "
        "disconnect it."
        for name, why in outcome.failed_judges.items()
    ]


def _fall(found: Judgement) -> str:
    return f"{-found.change.mean:.3g} ({INTERVAL} of the change {_ends(found.change)})"


def _signed(interval: Interval) -> str:
    return f"{interval.mean:+.4g} ({INTERVAL} {_ends(interval)})"


def _ends(interval: Interval) -> str:
    return f"{interval.low:+.4g} to {interval.high:+.4g}"
