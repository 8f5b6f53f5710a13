"""A running calibration in words: one line a generation."""

from __future__ import annotations

from .outcome import GenerationSummary


def generation_words(reward: str, summary: GenerationSummary) -> str:
    """What a generation that ended says, with a warning where it taught the search nothing."""
    validated = summary.validation
    held_out = "" if validated is None else f", {validated:.4g} on held-out prompts"
    expected = "" if summary.pilot is None else f". {summary.pilot.sentence}"
    return (
        f"Generation {summary.generation} of {summary.generations}: mean reward "
        f"{summary.mean:.4g} (candidates {summary.worst:.4g} to {summary.best:.4g}){held_out}"
        f"{_warning(reward, summary)}{expected}"
    )


def _warning(reward: str, summary: GenerationSummary) -> str:
    if summary.warning:
        return f". {summary.warning.removesuffix('.')}"
    if summary.best != summary.worst:
        return ""
    return (
        f". {reward} scores every candidate alike, so the search learns nothing: see with Score "
        "Images whether it tells pictures of these prompts apart"
    )
