"""What the node gives at once: the best preset so far, a small figure and a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ...calibri.figure_course import draw_course
from ...calibri.presets import Preset, load_preset
from ..calibration_result import make_preset
from .record import FINISHED, RUNNING
from .registry import Registry
from .run import Run

if TYPE_CHECKING:
    from ..calibration_inputs import Prepared


def outputs(run: Run, prepared: Prepared, registry: Registry) -> tuple[Preset, torch.Tensor, str]:
    """The preset, the figure as an IMAGE [1, H, W, 3], and how the run stands."""
    if run.best and run.preset_file.is_file():
        preset = load_preset(run.preset_file)
    else:
        preset = make_preset(prepared, prepared.space.identity)
    picture = draw_course(run.course(), prepared.config.generations, prepared.config.reward)
    report = torch.from_numpy(picture.astype(np.float32) / 255.0)[None]
    return preset, report, _words(run, registry)


def _words(run: Run, registry: Registry) -> str:
    summary = run.summary(registry.waits_for(run))
    progress = run.record.progress
    where = f"Run {run.id}, {summary['state']}"
    if summary["reason"]:
        where += f" ({summary['reason']})"
    if run.record.state == FINISHED and run.record.verdict:
        return f"{where}: {run.record.verdict}"
    if progress.reward is None or progress.gain is None:
        found = "no result yet: the preset changes nothing"
    else:
        found = (
            f"{progress.plain:.4g} plain, {progress.reward:.4g} with the best so far, gain "
            f"{progress.gain['mean']:+.4g} (95 % interval {progress.gain['low']:+.4g} to "
            f"{progress.gain['high']:+.4g})"
        )
    more = ""
    if run.record.state == RUNNING:
        more = f" {progress.pilot}" if progress.pilot else ""
        more += " It goes on while ComfyUI is idle; queue this again for a better preset."
    elif run.record.state != FINISHED:
        more = " Resume it in the tab Calibri runs."
    done = f"generation {progress.generation} of {progress.generations}"
    return f"{where}: {done}, {found}.{more}"
