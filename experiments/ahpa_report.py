"""AHPA's comparison as JSON, a Markdown table and figures.

All runs of a seed have the same data, noise and first weights, so methods are compared within
seeds: a difference is the mean over seeds of two runs' measurements, with Student's 95 % interval
over the seeds (three of them: wide).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..ahpa.levels import DEEP
from ..ahpa.methods import METHODS
from ..calibri.figure_style import FAINT, GRID, STYLE, VARIANTS
from ..calibri.selection import mean_interval

CURVE = 25
"""Points of a training's course."""

PLAIN, OURS = "none", "ahpa"
MEASURES = {"loss": "validation loss", "frechet": "Fréchet distance", "facts": "facts shown"}
DIGITS = {"loss": 4, "frechet": 2, "facts": 3}
Results = Sequence[Mapping[str, Any]]


def write_report(
    found: Results, effort: Mapping[str, Any], best: Mapping[str, float], folder: Path
) -> str:
    """Write `ahpa-compare.json` and the figures below images/; returns the tables.

    `best` is what the measurements are for the held-out pictures themselves.
    """
    report = {**summary(found, effort), "reference": dict(best)}
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "ahpa-compare.json").write_text(json.dumps(report, indent=1) + "\n")
    draw_courses(found, effort, folder / "images" / "ahpa_compare.png")
    routers = [run for run in found if "router" in run]
    if routers:
        draw_routers(routers, folder / "images" / "ahpa_routers.png")
    tables = table(report)
    (folder / "ahpa-compare.md").write_text(tables)
    return tables


def summary(found: Results, effort: Mapping[str, Any]) -> dict[str, Any]:
    """Every method's last measurements by seed, its differences, and when it reached plain's end.

    A method that lacks seeds which AHPA has is compared on those it has.
    """
    runs = {(run["method"], run["seed"]): run for run in found}
    rows = []
    for method in [name for name in METHODS if any(name == run["method"] for run in found)]:
        own = [run for run in found if run["method"] == method]
        row: dict[str, Any] = {"method": method, "seeds": [run["seed"] for run in own]}
        row["last"] = {name: [_last(run, name) for run in own] for name in MEASURES}
        for other in (PLAIN, OURS):
            pairs = [(run, runs[other, run["seed"]]) for run in own if (other, run["seed"]) in runs]
            if method != other and len(pairs) > 1:
                row[f"against {other}"] = {name: _difference(pairs, name) for name in MEASURES}
        reached = [
            _reached(run, runs[PLAIN, run["seed"]])
            for run in own
            if (PLAIN, run["seed"]) in runs and method != PLAIN
        ]
        row["share of plain's steps"] = reached
        row["seconds"] = [run["seconds"] for run in own]
        rows.append(row)
    return {
        "command": "python -m comfyui_calibri.experiments.ahpa_compare",
        "effort": dict(effort),
        "rows": rows,
        "routers": [_router(run) for run in found if "router" in run],
    }


def table(report: Mapping[str, Any]) -> str:
    """Markdown: last measurements (mean of the seeds), and differences within seeds."""
    heads, best = " | ".join(MEASURES.values()), report["reference"]
    lines = [f"| method | seeds | {heads} | plain's end reached after |", "|---" * 6 + "|"]
    for row in report["rows"]:
        cells = [
            f"{np.mean(row['last'][name]):.{digits}f} ({_spread(row['last'][name], digits)})"
            for name, digits in DIGITS.items()
        ]
        reached = [share for share in row["share of plain's steps"] if share is not None]
        asked = len(row["share of plain's steps"])
        when = f"{np.mean(reached):.0%} of its steps, {len(reached)} of {asked}" if reached else "–"
        lines.append(f"| {row['method']} | {len(row['seeds'])} | {' | '.join(cells)} | {when} |")
    lines.append(
        f"| *the held-out pictures' own latents* | | | {best['frechet']:.2f} "
        f"| {best['facts']:.3f}; beside others' prompts {best['chance']:.3f} | |"
    )
    for other in (PLAIN, OURS):
        lines += ["", f"| minus {other}, same seeds | {heads} |", "|---" * 4 + "|"]
        for row in report["rows"]:
            if f"against {other}" in row:
                gains = row[f"against {other}"]
                cells = [_cell(gains[name], digits) for name, digits in DIGITS.items()]
                lines.append(f"| {row['method']} | {' | '.join(cells)} |")
    lines += ["", "| router | β of deep at t = 0, ½, 1 | range | entropy at t = 0, ½, 1 (nats) |"]
    lines.append("|---" * 4 + "|")
    for router in report["routers"]:
        deep = ", ".join(f"{value:.2f}" for value in router["deep"])
        nats = ", ".join(f"{value:.2f}" for value in router["entropy"])
        name = f"{router['method']}, seed {router['seed']}"
        lines.append(f"| {name} | {deep} | {router['range']:.2f} | {nats} |")
    return "\n".join(lines) + "\n"


def draw_courses(found: Results, effort: Mapping[str, Any], path: Path) -> None:
    """Training loss minus plain's on the same batches and validation loss over the steps, bands
    being the seeds' range; the pictures' measurements at the end, a dot for each seed.
    """
    import matplotlib
    from matplotlib.figure import Figure

    plain = {run["seed"]: run for run in found if run["method"] == PLAIN}
    names = [name for name in METHODS if any(name == run["method"] for run in found)]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, 9), layout="constrained")
        gaps, losses, *ends = figure.subplots(2, 2).flat
        for number, name in enumerate(names):
            colour, style = _look(number, name)
            own = [run for run in found if run["method"] == name]
            pairs = [(run, plain[run["seed"]]) for run in own if run["seed"] in plain]
            if name != PLAIN and pairs:
                series = [np.subtract(run["training"], other["training"]) for run, other in pairs]
                at = (np.arange(len(series[0])) + 0.5) * effort["steps"] / len(series[0])
                _band(gaps, at, series, name, colour, style)
            at = np.array([point["step"] for point in own[0]["measured"]])
            series = [[point["loss"] for point in run["measured"]] for run in own]
            _band(losses, at, series, name, colour, style)
            for axes, measure in zip(ends, ("frechet", "facts"), strict=True):
                values = [_last(run, measure) for run in own]
                axes.plot(values, [-number] * len(values), "o", color=colour, alpha=0.5)
                axes.plot([np.mean(values)], [-number], "|", color=colour, markersize=18)
        gaps.axhline(0, color=FAINT, lw=1)
        gaps.set_title("training loss minus plain's, same batches")
        losses.set_title(MEASURES["loss"])
        for axes in (gaps, losses):
            axes.set_xlabel("step")
            axes.grid(color=GRID)
        for axes, measure in zip(ends, ("frechet", "facts"), strict=True):
            axes.set_title(f"{MEASURES[measure]} at the end")
            axes.set_yticks(range(0, -len(names), -1), names, fontsize=8)
            axes.grid(axis="x", color=GRID)
        handles, labels = losses.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center")
        figure.savefig(path, dpi=100)


def draw_routers(found: Results, path: Path) -> None:
    """β of the deep group over t for each trained router, a panel for each method."""
    import matplotlib
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(run["method"] for run in found))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.2 * len(names) + 1, 2.8), layout="constrained")
        for axes, name in zip(
            figure.subplots(1, len(names), sharey=True, squeeze=False)[0], names, strict=True
        ):
            for run in (run for run in found if run["method"] == name):
                deep = _deep(run)
                axes.plot(np.linspace(0, 1, len(deep)), deep, label=f"seed {run['seed']}")
            axes.set_title(name)
            axes.set_xlabel("t (1 is noise)")
            axes.set_ylim(0, 1)
            axes.grid(color=GRID)
        figure.axes[0].set_ylabel("β of the deep group")
        figure.axes[0].legend()
        figure.savefig(path, dpi=100)


def _difference(
    pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], measure: str
) -> dict[str, float]:
    gaps = [_last(own, measure) - _last(other, measure) for own, other in pairs]
    return {name: round(value, 5) for name, value in vars(mean_interval(np.array(gaps))).items()}


def _last(run: Mapping[str, Any], measure: str) -> float:
    return float({**run["measured"][-1], **run["drawn"]}[measure])


def _reached(run: Mapping[str, Any], plain: Mapping[str, Any]) -> float | None:
    """The share of the steps after which a run has the validation loss that plain ends with,
    between two measurements on a straight line; None where it has it never.
    """
    goal, points = plain["measured"][-1]["loss"], run["measured"]
    for before, after in zip([None, *points], points, strict=False):
        if after["loss"] <= goal:
            if before is None:
                return float(after["step"] / points[-1]["step"])
            way = (before["loss"] - goal) / (before["loss"] - after["loss"])
            step = before["step"] + way * (after["step"] - before["step"])
            return float(step / points[-1]["step"])
    return None


def _router(run: Mapping[str, Any]) -> dict[str, Any]:
    weights, deep = np.array(run["router"]), _deep(run)
    places = (0, len(deep) // 2, len(deep) - 1)
    nats = -(weights * np.log(np.clip(weights, 1e-12, None))).sum(axis=1)
    return {
        "method": run["method"],
        "seed": run["seed"],
        "deep": [round(float(deep[i]), 3) for i in places],
        "range": round(float(deep.max() - deep.min()), 3),
        "entropy": [round(float(nats[i]), 3) for i in places],
        "levels": [level[0] for level in run["levels"]],
        "weights": [run["router"][i] for i in places],
    }


def _deep(run: Mapping[str, Any]) -> Any:
    chosen = [i for i, (_, group) in enumerate(run["levels"]) if group == DEEP]
    return np.array(run["router"])[:, chosen].sum(axis=1)


def _look(number: int, name: str) -> tuple[str, str]:
    """Plain, AHPA and REPA stand out; the rest are thin, in turn."""
    strong = {PLAIN: VARIANTS[0][0], OURS: VARIANTS[2][0], "repa": VARIANTS[1][0]}
    styles = ("-", "--", ":", "-.")
    return strong.get(name, f"C{number % 10}"), "-" if name in strong else styles[number % 4]


def _band(axes: Any, at: Any, series: Sequence[Any], name: str, colour: str, style: str) -> None:
    values = np.array(series, dtype=float)
    strong = name in (PLAIN, OURS)
    axes.plot(at, values.mean(axis=0), style, color=colour, label=name, lw=2.4 if strong else 1.1)
    if strong:
        axes.fill_between(at, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15)


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{min(values):.{digits}f} … {max(values):.{digits}f}"


def _cell(gain: Mapping[str, float], digits: int) -> str:
    bold = "**" if gain["low"] > 0 or gain["high"] < 0 else ""
    numbers = [f"{gain[name]:+.{digits}f}" for name in ("mean", "low", "high")]
    return f"{bold}{numbers[0]}{bold} ({numbers[1]} … {numbers[2]})"
