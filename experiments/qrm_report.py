"""The QRM ablation's numbers as JSON, Markdown tables and figures.

A row's gain is, for each held-out prompt, the mean over seeds of its score minus the plain model's
from the same noise; intervals are Student's over prompts. They say how sure the gain of *these*
trainings is over prompts. Whether other trainings would differ likewise is told by the difference
of the seeds' means with Welch's interval over seeds, and by the seeds' own means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..calibri.evaluation import Floats
from ..calibri.figure_style import FAINT, GRID, INK, STREAMS, STYLE
from ..calibri.selection import mean_interval
from ..qrm.inspection import rank_correlation

MEASURES = ("reward", "facts", "all_facts", "fit", "diversity")
TITLES = {
    "reward": "reward (trained on)",
    "facts": "checker: facts shown (judge)",
    "fit": "checker: fit of the shapes",
    "diversity": "diversity",
}
PLAIN, REFERENCE = "plain", "QRM"
GROUPS = ("main", "controls", "longer", "losses", "architecture")
_COLOURS = {
    "main": STREAMS["image"],
    "controls": STREAMS["text"],
    "longer": INK,
    "losses": STREAMS["joint"],
    "architecture": FAINT,
}
Results = Sequence[Mapping[str, Any]]


def write_report(found: Results, folder: Path) -> None:
    """Write `qrm-ablation.json`, `qrm-ablation.md` and, below images/, the figures."""
    report = summary(found)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "qrm-ablation.json").write_text(json.dumps(report, indent=1) + "\n")
    (folder / "qrm-ablation.md").write_text(tables(report))
    draw_gains(report, folder / "images" / "qrm_gains.png")


def summary(found: Results) -> dict[str, Any]:
    """Every row that has as many seeds as the reference; those that lack some are left out."""
    plain = next(one for one in found if one["row"] == PLAIN)
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for one in found:
        rows.setdefault(one["row"], []).append(one)
    seeds = {one["seed"] for one in rows.get(REFERENCE, [])}
    whole = {
        name: runs
        for name, runs in rows.items()
        if {run["seed"] for run in runs} in (seeds, {0}) and name != PLAIN
    }
    reference = whole[REFERENCE]
    made = []
    for name, runs in whole.items():
        last = runs[-1]
        made.append(
            {
                "row": name,
                "group": last["group"],
                "parameters": last.get("parameters"),
                "seeds": [run["seed"] for run in runs],
                "best_steps": [run["best_step"] for run in runs if "best_step" in run],
                "stopping": [run["stopping"] for run in runs if "stopping" in run],
                "means": {m: [_mean(run["scores"][m]) for run in runs] for m in MEASURES},
                "gain": {m: _gain(runs, [plain], m) for m in MEASURES},
                "against_qrm": {m: _gain(runs, reference, m) for m in MEASURES},
                "against_qrm_over_seeds": {m: _welch(runs, reference, m) for m in MEASURES},
            }
        )
    expected = [
        _rank(run["expected"], run["scores"]["reward"]) for run in reference if "expected" in run
    ]
    difficulty = [
        _rank(run["expected"], plain["scores"]["reward"]) for run in reference if "expected" in run
    ]
    return {
        "command": "python -m comfyui_calibri.experiments.qrm_ablation",
        "prompts": len(plain["scores"]["reward"]),
        "plain": {m: _mean(plain["scores"][m]) for m in MEASURES},
        "rows": made,
        "expected_against_reached": expected,
        "expected_against_plain": difficulty,
        "left_out": sorted(rows.keys() - whole.keys() - {PLAIN}),
    }


def tables(report: Mapping[str, Any]) -> str:
    """Markdown: every group with all measures, and what the controls are against the QRM."""
    plain = report["plain"]
    lines = [
        "| | parameters | reward | facts shown | fit | diversity | reward of each seed |",
        "|---|---|---|---|---|---|---|",
        f"| plain | | {plain['reward']:.3f} | {plain['facts']:.3f} | {plain['fit']:.3f} "
        f"| {plain['diversity']:.3f} | |",
    ]
    for group in GROUPS:
        for row in report["rows"]:
            if row["group"] != group:
                continue
            cells = [_cell(row["gain"][m]) for m in ("reward", "facts", "fit", "diversity")]
            each = ", ".join(f"{value:.2f}" for value in row["means"]["reward"])
            count = "" if row["parameters"] is None else f"{row['parameters']:,}"
            lines.append(f"| {row['row']} | {count} | {' | '.join(cells)} | {each} |")
    lines += ["", "| against the QRM | reward | facts shown | fit | reward, over seeds |"]
    lines.append("|---" * 5 + "|")
    for row in report["rows"]:
        if row["group"] != "main" or row["row"] == "Calibri alone":
            cells = [_cell(row["against_qrm"][m]) for m in ("reward", "facts", "fit")]
            seeds = row["against_qrm_over_seeds"]["reward"]
            cells.append("" if seeds is None else _cell(seeds))
            lines.append(f"| {row['row']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw_gains(report: Mapping[str, Any], path: Path) -> None:
    """Gains over the plain model with their intervals, and each seed as a dot."""
    import matplotlib
    from matplotlib.figure import Figure

    rows = list(reversed(report["rows"]))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, 1.2 + 0.34 * len(rows)), layout="constrained")
        for axes, (measure, title) in zip(
            figure.subplots(1, len(TITLES), sharey=True), TITLES.items(), strict=True
        ):
            for at, row in enumerate(rows):
                gain, colour = row["gain"][measure], _COLOURS[row["group"]]
                axes.plot([gain["low"], gain["high"]], [at, at], color=colour, linewidth=2)
                axes.plot([gain["mean"]], [at], "o", color=colour, markersize=6)
                seeds = np.array(row["means"][measure]) - report["plain"][measure]
                axes.plot(seeds, [at] * len(seeds), "|", color=INK, markersize=7, alpha=0.6)
            axes.axvline(0, color=FAINT, linewidth=1)
            axes.set_title(title, fontsize=9)
            axes.grid(axis="x", color=GRID)
        figure.axes[0].set_yticks(range(len(rows)), [row["row"] for row in rows], fontsize=8)
        figure.savefig(path, dpi=100)


def _gain(
    runs: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]], measure: str
) -> dict[str, float]:
    own, other = _prompts(runs, measure), _prompts(others, measure)
    return {name: round(value, 5) for name, value in vars(mean_interval(own - other)).items()}


def _welch(
    runs: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]], measure: str
) -> dict[str, float] | None:
    """The difference of the seeds' means and its 95 % interval over trainings."""
    from scipy.stats import ttest_ind

    own, other = ([_mean(run["scores"][measure]) for run in part] for part in (runs, others))
    if min(len(own), len(other)) < 2 or own == other:
        return None
    interval = ttest_ind(own, other, equal_var=False).confidence_interval(0.95)
    gap = float(np.mean(own) - np.mean(other))
    found = {"mean": gap, "low": float(interval.low), "high": float(interval.high)}
    return {name: round(value, 5) for name, value in found.items()}


def _prompts(runs: Sequence[Mapping[str, Any]], measure: str) -> Floats:
    """Means over seeds [P]."""
    return np.asarray(np.mean([run["scores"][measure] for run in runs], axis=0))


def _rank(expected: Sequence[float], reached: Sequence[float]) -> float | None:
    found = rank_correlation(np.array(expected), np.array(reached))
    return None if found is None else round(found, 3)


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 5)


def _cell(gain: Mapping[str, float]) -> str:
    bold = "**" if gain["low"] > 0 or gain["high"] < 0 else ""
    return f"{bold}{gain['mean']:+.3f}{bold} ({gain['low']:+.3f} … {gain['high']:+.3f})"
