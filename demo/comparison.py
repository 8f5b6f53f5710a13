"""An evaluation of presets on the demo model: what is compared, and on which prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..calibri.comparison import Comparison, Setting, variant_names
from ..calibri.comparison_report import about_presets, shown_cells, steps_found_at
from ..calibri.presets import Preset
from .painter import SCORES, DemoPainter
from .pictures import DemoModels
from .prompts import generate_prompts
from .weights import DIT

PROMPT_SEED, EVALUATED_SEED = 1, 3
"""Of the prompts that the example workflow searches and selects on, and of those that judge."""
SELECTED = 256
"""Held-out prompts that the example workflow selects on."""


def evaluation_prompts(count: int) -> tuple[str, ...]:
    """Held-out prompts on which the demo's searches neither search nor select."""
    selected = set(generate_prompts(SELECTED, PROMPT_SEED, "test"))
    drawn = generate_prompts(count + SELECTED, EVALUATED_SEED, "test")
    return tuple(prompt for prompt in drawn if prompt not in selected)[:count]


def demo_comparison(
    models: DemoModels,
    presets: Sequence[Preset],
    settings: tuple[Setting, ...],
    prompts: tuple[str, ...],
    images_per_prompt: int,
    seed: int,
) -> tuple[Comparison, DemoPainter, dict[str, Any]]:
    """The comparison, who paints it, and what its report says about model and presets.

    Raises ValueError with one sentence for presets and prompts that are not the demo's.
    """
    names = variant_names([preset.title for preset in presets])
    found_at = steps_found_at(presets[0]) if presets else None
    comparison = Comparison(
        variants=names,
        settings=settings,
        prompts=prompts,
        rewards=SCORES,
        images_per_prompt=images_per_prompt,
        seed=seed,
        shown=shown_cells(settings, len(names), found_at),
    )
    about = {
        "model": Path(DIT).name,
        "presets": about_presets(names[1:], presets),
    }
    return comparison, DemoPainter(models, presets, prompts), about
