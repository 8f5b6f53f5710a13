"""An analysis in numbers, as JSON values, and in words. Nothing is measured here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from .analysis import Analysis
from .configuration import library_versions
from .skip_layers import Suggestion

ANALYSIS_VERSION = 1


def build_analysis_report(
    analysis: Analysis, record: Mapping[str, Any], suggestion: Suggestion
) -> dict[str, Any]:
    """All numbers of an analysis as JSON values. Rewards are in the reward's own unit.

    `record` is `AnalysisConfig.record`. Keys: analysis_version, run (the settings; prompts as a
    count), plain (mean, low, high), coefficients (name -> one entry a scale: scale and the gain
    over the plain model with its 95 % band over prompts), skip_layer_guidance, counts, versions.
    """
    run = {name: value for name, value in record.items() if name != "names"}
    return {
        "analysis_version": ANALYSIS_VERSION,
        "run": {
            **run,
            "prompts": analysis.prompts,
            "images_per_prompt": analysis.images_per_prompt,
        },
        "plain": asdict(analysis.plain),
        "coefficients": {
            name: [
                {
                    "scale": scale,
                    "gain": float(analysis.gain[row, s]),
                    "low": float(analysis.low[row, s]),
                    "high": float(analysis.high[row, s]),
                }
                for s, scale in enumerate(analysis.scales)
            ]
            for row, name in enumerate(analysis.names)
        },
        "skip_layer_guidance": {
            "double_layers": suggestion.double_layers,
            "single_layers": suggestion.single_layers,
            "reason": suggestion.reason,
        },
        "counts": {"images": analysis.images, "seconds": analysis.seconds},
        "versions": library_versions(),
    }


def describe_analysis(analysis: Analysis, reward: str, suggestion: Suggestion) -> str:
    """What was found, in a few sentences."""
    worst, best = int(analysis.gain.argmin()), int(analysis.gain.argmax())
    lines = [
        f"{reward}: {analysis.plain.mean:.4g} for the plain model. Most is lost by "
        f"{_cell(analysis, worst)}, most gained by {_cell(analysis, best)}. That is the best of "
        f"{analysis.gain.size} and was chosen by what is measured here: expect less of it.",
    ]
    layers = [
        f"{name} {text}"
        for name, text in (
            ("double_layers", suggestion.double_layers),
            ("single_layers", suggestion.single_layers),
        )
        if text
    ]
    told = f"{', '.join(layers)}. " if layers else ""
    return " ".join([*lines, f"Skip Layer Guidance: {told}{suggestion.reason}"])


def _cell(analysis: Analysis, index: int) -> str:
    row, s = divmod(index, len(analysis.scales))
    low, high = analysis.low[row, s], analysis.high[row, s]
    return (
        f"{analysis.names[row]} at {analysis.scales[s]:g} ({analysis.gain[row, s]:+.4g}, 95 % band "
        f"{low:+.4g} to {high:+.4g})"
    )
