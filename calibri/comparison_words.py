"""What a comparison found, in sentences: steps saved, rewards that fell, seeds that became alike.

Every sentence rests on the numbers of `comparison_report.py` alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

COLLAPSE = 0.5
"""Of the plain model's diversity: with the whole interval below, seeds hardly matter any more."""


def sentences(report: Mapping[str, Any]) -> list[str]:
    """The findings, the most important first: what was measured, each preset, and a caution."""
    found = [_measured(report)]
    for variant in range(1, len(report["variants"])):
        found += _steps_saved(report, variant)
        found += _gain_at_one_step_count(report, variant)
        found += _falling(report, variant)
        found += _diversity(report, variant)
    return found + cautions(report)


def cautions(report: Mapping[str, Any]) -> list[str]:
    """The last sentence, which belongs to every claim of saved steps; none where there is none."""
    return [_caution(report)] if report["equal_best"] else []


def setting_label(report: Mapping[str, Any], setting: Mapping[str, Any], steps: bool = True) -> str:
    """What tells a setting from the others of the report, "4 steps, cfg 3.5" for example."""
    parts = [f"{setting['steps']} {'step' if setting['steps'] == 1 else 'steps'}"] if steps else []
    for name, text in (
        ("cfg", f"cfg {setting['cfg']:g}"),
        ("sampler", str(setting["sampler"])),
        ("scheduler", str(setting["scheduler"])),
    ):
        if _varies(report, name):
            parts.append(text)
    if _varies(report, "width") or _varies(report, "height"):
        parts.append(f"{setting['width']} x {setting['height']}")
    return ", ".join(parts)


def interval_text(interval: Mapping[str, float]) -> str:
    """For example "+0.12 [+0.05, +0.19]"."""
    return f"{interval['mean']:+.3g} [{interval['low']:+.3g}, {interval['high']:+.3g}]"


def ratio_text(interval: Mapping[str, float]) -> str:
    """For example "0.92 [0.88, 0.97]"."""
    return f"{interval['mean']:.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"


def cells_of(report: Mapping[str, Any], variant: int) -> dict[int, Mapping[str, Any]]:
    """A variant's cells by setting."""
    return {cell["setting"]: cell for cell in report["cells"] if cell["variant"] == variant}


def _varies(report: Mapping[str, Any], name: str) -> bool:
    return len({setting[name] for setting in report["settings"]}) > 1


def _measured(report: Mapping[str, Any]) -> str:
    variants, prompts = report["variants"], len(report["prompts"])
    against = " and ".join(_quoted(name) for name in variants[1:]) or "nothing else"
    return (
        f"Plain against {against}: {_counted(len(report['settings']), 'setting')}, "
        f"{_counted(prompts, 'prompt')} x {_counted(report['images_per_prompt'], 'image')}, all "
        "from the same noise. Brackets and bands are 95 % intervals over prompts."
    )


def _steps_saved(report: Mapping[str, Any], variant: int) -> Iterator[str]:
    """Of the first reward: where the preset reaches the plain model's best."""
    cells, plain = cells_of(report, variant), cells_of(report, 0)
    for entry in report["equal_best"]:
        if entry["variant"] != variant or entry["reward"] != report["rewards"][0]:
            continue
        best = report["settings"][entry["best"]]
        where = setting_label(report, best, steps=False)
        name = _quoted(report["variants"][variant]) + (f" at {where}" if where else "")
        target = (
            f"the plain model's best {entry['reward']} "
            f"({entry['best_mean']:.4g} at {_counted(best['steps'], 'step')})"
        )
        if entry["reached"] is None:
            yield f"{name} does not reach {target} at any number of steps that was tried."
            continue
        reached = report["settings"][entry["reached"]]
        nfe, nfe_plain = cells[entry["reached"]]["nfe"], plain[entry["best"]]["nfe"]
        sure = "excludes" if entry["excludes_worse"] else "does not exclude"
        yield (
            f"{name} reaches {target} with {_counted(reached['steps'], 'step')}, {nfe} instead of "
            f"{nfe_plain} evaluations of the model. The difference, "
            f"{interval_text(entry['difference'])}, {sure} that it is worse."
        )


def _gain_at_one_step_count(report: Mapping[str, Any], variant: int) -> Iterator[str]:
    """Where a group has one step count only, there are no steps to save, but a gain."""
    cells, reward = cells_of(report, variant), report["rewards"][0]
    for group in report["groups"]:
        if len(group) == 1:
            gain = cells[group[0]]["rewards"][reward]["gain"]
            where = setting_label(report, report["settings"][group[0]])
            name = _quoted(report["variants"][variant])
            yield f"{name} at {where} changes {reward} by {interval_text(gain)}."


def _falling(report: Mapping[str, Any], variant: int) -> Iterator[str]:
    """Rewards that fall while the first one rises: what over-optimisation looks like."""
    first, *others = report["rewards"]
    for reward in others:
        fallen = [
            (setting, cell["rewards"][reward]["gain"])
            for setting, cell in cells_of(report, variant).items()
            if cell["rewards"][first]["gain"]["low"] > 0
            and cell["rewards"][reward]["gain"]["high"] < 0
        ]
        if fallen:
            setting, gain = min(fallen, key=lambda found: found[1]["mean"])
            yield (
                f"{_quoted(report['variants'][variant])} raises {first} and lowers {reward} at "
                f"{len(fallen)} of {_counted(len(report['settings']), 'setting')}, most at "
                f"{setting_label(report, report['settings'][setting])} ({interval_text(gain)}): "
                f"it may exploit {first}; look at the pictures."
            )


def _diversity(report: Mapping[str, Any], variant: int) -> Iterator[str]:
    """The setting at which seeds became most alike, where they surely did."""
    ratios = [
        (setting, cell["diversity"]["ratio"])
        for setting, cell in cells_of(report, variant).items()
        if cell["diversity"] is not None and cell["diversity"]["ratio"] is not None
    ]
    lower = [found for found in ratios if found[1]["high"] < 1]
    if not ratios:
        return
    name = _quoted(report["variants"][variant])
    if not lower:
        mean = sum(ratio["mean"] for _, ratio in ratios) / len(ratios)
        yield (
            f"{name} has {mean:.2f} of the plain model's diversity, averaged over the settings; "
            "no setting's interval lies below 1."
        )
        return
    setting, ratio = min(lower, key=lambda found: found[1]["mean"])
    verdict = (
        "This is collapse: seeds hardly matter any more."
        if ratio["high"] < COLLAPSE
        else "Pictures of different seeds are more alike."
    )
    yield (
        f"{name} lowers diversity at {len(lower)} of {_counted(len(ratios), 'setting')}, most at "
        f"{setting_label(report, report['settings'][setting])}, to {ratio_text(ratio)} of the "
        f"plain model's. {verdict}"
    )


def _caution(report: Mapping[str, Any]) -> str:
    tried = max(len(group) for group in report["groups"])
    return (
        f"The plain model's best is the highest of up to {tried} measured means, so it is likelier "
        "too high than too low, and the preset's step count is the first of as many that reached "
        "it: draw new seeds at those two settings before you rely on it."
    )


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _quoted(name: str) -> str:
    return f"“{name}”"


def short(report: Mapping[str, Any], most: int) -> str:
    """`most` sentences, one a line, the caution among them, and how many more there are."""
    texts, last = sentences(report), cautions(report)
    if len(texts) <= most:
        return "\n".join(texts)
    shown = texts[: most - len(last)]
    return "\n".join([*shown, f"{len(texts) - most} more in the report.", *last])
