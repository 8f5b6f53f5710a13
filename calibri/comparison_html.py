"""A comparison as one page: findings, figures, tables. It needs nothing but itself.

Prompts, names of presets and of rewards are strangers' text: all of it is escaped, and the page
forbids itself scripts and whatever is elsewhere.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from .comparison_words import cells_of, interval_text, ratio_text, sentences, setting_label

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2937; max-width: 1400px; margin: 2em auto;
  padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
img { max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25em .8em; text-align: right; border-bottom: 1px solid #e5e7eb;
  white-space: nowrap; }
th { color: #6b7280; font-weight: 600; }
.told td { text-align: left; white-space: normal; vertical-align: top; }
th.name, td.name { text-align: left; }
td small { color: #6b7280; }
tr.plain td { background: #f3f4f6; }
"""


def comparison_page(report: Mapping[str, Any], figure: bytes, grid: bytes) -> str:
    """The page of `build_comparison`'s report; `figure` and `grid` are PNG files."""
    title = "Evaluation" + (f": {model}" if (model := report["about"].get("model")) else "")
    parts = [
        f"<h1>{escape(title)}</h1>",
        _listed(sentences(report)),
        _picture(figure, "Rewards and diversity over the settings, and gains over the plain model"),
        "<h2>Pictures from the same noise</h2>",
        _picture(grid, "Plain and calibrated"),
    ]
    for number, group in enumerate(report["groups"]):
        label = setting_label(report, report["settings"][group[0]], steps=False)
        where = f" at {label}" if label else ""
        parts += [f"<h2>{escape('Numbers' + where)}</h2>", _numbers(report, group)]
        if saved := [entry for entry in report["equal_best"] if entry["group"] == number]:
            parts += [f"<h2>{escape('Steps saved' + where)}</h2>", _steps_saved(report, saved)]
    parts += ["<h2>What was compared</h2>", _compared(report)]
    prompts = "".join(f"<li>{escape(prompt)}</li>" for prompt in report["prompts"])
    parts.append(f"<details><summary>Prompts</summary><ol>{prompts}</ol></details>")
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _listed(texts: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"


def _picture(png: bytes, description: str) -> str:
    data = base64.b64encode(png).decode()
    return f'<p><img alt="{escape(description)}" src="data:image/png;base64,{data}"></p>'


def _numbers(report: Mapping[str, Any], group: Sequence[int]) -> str:
    """A row for each cell of a group, the variants of a setting together."""
    diverse = report["images_per_prompt"] > 1
    names = [name for reward in report["rewards"] for name in (reward, "gain over plain")]
    head = ["", "steps", "evaluations", "s / image", *names]
    rows = []
    cells = [cells_of(report, variant) for variant in range(len(report["variants"]))]
    for setting in group:
        for variant, name in enumerate(report["variants"]):
            cell = cells[variant][setting]
            row = [
                escape(name),
                str(report["settings"][setting]["steps"]),
                str(cell["nfe"]),
                f"{cell['seconds']:.3g}",
            ]
            for reward in report["rewards"]:
                found = cell["rewards"][reward]
                row += [_mean(found), "" if found["gain"] is None else interval_text(found["gain"])]
            if diverse:
                ratio = cell["diversity"]["ratio"]
                row += [_mean(cell["diversity"]), "" if ratio is None else ratio_text(ratio)]
            rows.append(("plain" if variant == 0 else "", row))
    return _table([*head, *(("diversity", "ratio to plain") if diverse else ())], rows)


def _steps_saved(report: Mapping[str, Any], entries: Iterable[Mapping[str, Any]]) -> str:
    """The number of steps at which each preset reaches the plain model's best, by reward."""
    rows = []
    for entry in entries:
        settings, reached = report["settings"], entry["reached"]
        difference = entry["difference"]
        rows.append(
            (
                "",
                [
                    escape(report["variants"][entry["variant"]]),
                    escape(entry["reward"]),
                    f"{entry['best_mean']:.4g}",
                    str(settings[entry["best"]]["steps"]),
                    "not reached" if reached is None else str(settings[reached]["steps"]),
                    "" if difference is None else interval_text(difference),
                    "" if difference is None else "yes" if entry["excludes_worse"] else "no",
                ],
            )
        )
    head = [
        "",
        "reward",
        "plain model's best",
        "at steps",
        "reached at steps",
        "difference",
        "interval excludes worse",
    ]
    return _table(head, rows)


def _compared(report: Mapping[str, Any]) -> str:
    about = {**report["about"], "seed": report["seed"], "versions": report["versions"]}
    rows = [("", [escape(name), escape(_told(value))]) for name, value in about.items()]
    return f'<div class="told">{_table(["", ""], rows)}</div>'


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_told(inner)}" for name, inner in value.items())
    if isinstance(value, (list, tuple)):
        return "; ".join(_told(inner) for inner in value)
    return str(value)


def _mean(interval: Mapping[str, float]) -> str:
    spread = f"[{interval['low']:.3g}, {interval['high']:.3g}]"
    return f"{interval['mean']:.4g} <small>{spread}</small>"


def _table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """`rows` are (class, cells) with their HTML; `head` is text."""
    top = "".join(f"<th{_name_class(place)}>{escape(text)}</th>" for place, text in enumerate(head))
    body = "".join(
        f'<tr class="{kind}">'
        + "".join(f"<td{_name_class(place)}>{cell}</td>" for place, cell in enumerate(cells))
        + "</tr>"
        for kind, cells in rows
    )
    return f'<div class="wide"><table><tr>{top}</tr>{body}</table></div>'


def _name_class(place: int) -> str:
    return ' class="name"' if place == 0 else ""
