"""The evidence of docs/search.md: measurements joined into one JSON, and its pictures.

    python -m comfyui_calibri.experiments.search_evidence gather --folder RESULTS
    python -m comfyui_calibri.experiments.search_evidence draw

RESULTS holds what was printed: remedies.jsonl (search_remedies), generations.jsonl (search_racing),
buckets.jsonl, stopping.jsonl, racing.jsonl and pilot.jsonl (benchmarks/fewer_images), and the runs
of search_profiles. The toy's
descents are computed here.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..benchmarks.search import IDENTITY, LOWER, MOST_EVALUATIONS, UPPER, descend
from ..calibri.search import PROFILES, create_search
from .search_profiles import report

DOCS = Path(__file__).resolve().parents[1] / "docs"
EVIDENCE = DOCS / "search-evidence.json"
NOISES = (0.0, 0.03, 0.1)
SEEDS = range(11)
COLOURS = {"default": "#2a6fdb", "paper": "#d9822b"}


def gather(folder: Path) -> dict[str, Any]:
    """All of it as JSON values."""
    lines = {
        name: [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        for name in ("remedies", "generations", "buckets", "stopping", "racing", "pilot")
    }
    for row in lines["pilot"]:
        for long in ("gains", "lows", "highs"):
            del row[long]
    return {"descents": descents(), **lines, "demo": report(folder)}


def descents() -> list[dict[str, Any]]:
    """The median gap after every fifth generation, for each profile and noise."""
    rows = []
    for profile in PROFILES:
        for noise in NOISES:
            gaps = []
            for seed in SEEDS:
                search = create_search(profile, IDENTITY, LOWER, UPPER, seed)
                gaps.append(descend(search, seed, noise, MOST_EVALUATIONS).gaps)
            median = np.median(gaps, axis=0)[4::5]
            at = (np.arange(len(median)) + 1) * 5 * search.population
            rows.append(
                {
                    "profile": profile,
                    "noise": noise,
                    "evaluations": at.tolist(),
                    "gap": np.round(median, 4).tolist(),
                }
            )
    return rows


def draw(evidence: dict[str, Any]) -> None:
    """The pictures of docs/search.md."""
    from matplotlib.figure import Figure

    def figure(columns: int) -> tuple[Figure, Any]:
        made = Figure(figsize=(4 * columns, 3.2), layout="constrained")
        return made, np.atleast_1d(made.subplots(1, columns, sharey=True))

    made, axes = figure(len(NOISES))
    for axis, noise in zip(axes, NOISES, strict=True):
        for row in evidence["descents"]:
            if row["noise"] == noise:
                colour = COLOURS[row["profile"]]
                axis.plot(row["evaluations"], row["gap"], color=colour, label=row["profile"])
        axis.set(title=f"noise {noise:g}", xlabel="evaluations", yscale="log")
        axis.axhline(0.05, color="grey", lw=0.6)
    axes[0].set_ylabel("gap left")
    axes[0].legend(frameon=False)
    made.savefig(DOCS / "images" / "search_toy.png", dpi=100)

    made, axes = figure(2)
    budgets = sorted({row["search_images"] for row in evidence["buckets"]})
    noises = sorted({row["noise"] for row in evidence["buckets"]})
    for axis, images in zip(axes, budgets, strict=True):
        for noise in noises:
            rows = [
                r
                for r in evidence["buckets"]
                if (r["noise"], r["search_images"]) == (noise, images)
            ]
            fixed = [(r["bucket_size"], r["gain"]) for r in rows if r["bucket_size"]]
            (line,) = axis.plot(*zip(*fixed, strict=True), "o-", ms=3, label=f"noise {noise:g}")
            (chosen,) = [r["gain"] for r in rows if not r["bucket_size"]]
            axis.axhline(chosen, color=line.get_color(), lw=0.8, ls=":")
        axis.set(
            title=f"{images:,} images (dotted: chosen)",
            xlabel="images for each candidate",
            xscale="log",
        )
        axis.set_xticks([2, 4, 8, 16, 32, 64], ["2", "4", "8", "16", "32", "64"])
        axis.minorticks_off()
    axes[0].set_ylabel("gain, of the initial gap")
    axes[1].legend(frameon=False, fontsize=8)
    made.savefig(DOCS / "images" / "search_images.png", dpi=100)

    made, (axis,) = figure(1)
    made.set_size_inches(6, 3.6)
    for name, variant in evidence["demo"]["variants"].items():
        colour = COLOURS["paper" if name == "paper" else "default"]
        gains = np.array(variant["gains"])
        axis.plot(variant["evaluations"], gains.T, color=colour, lw=0.6, alpha=0.5)
        label = "paper" if name == "paper" else "default"
        axis.plot(variant["evaluations"], gains.mean(axis=0), color=colour, lw=2, label=label)
    axis.axhline(0, color="grey", lw=0.6)
    axis.set(xlabel="evaluations of 16 images", ylabel="validated gain")
    axis.legend(frameon=False)
    made.savefig(DOCS / "images" / "search_demo.png", dpi=100)


def main() -> None:
    """Gather, or draw what was gathered."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=("gather", "draw"))
    parser.add_argument("--folder", type=Path, default=Path(".run/search-profiles"))
    options = parser.parse_args()
    if options.stage == "gather":
        EVIDENCE.write_text(json.dumps(gather(options.folder), indent=1) + "\n")
    else:
        draw(json.loads(EVIDENCE.read_text()))


if __name__ == "__main__":
    main()
