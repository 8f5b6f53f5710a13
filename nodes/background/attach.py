"""From a node's inputs to its run: the one of earlier with the same settings, or a new one."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...calibri.configuration import differing_settings
from ...calibri.continuation import found_preset
from ...calibri.journal import Journal
from ...calibri.presets import Preset, load_preset, save_preset
from .. import runs
from ..run_settings import BACKGROUND_START
from .node import FROM_RESULT, NEW, REFUSE
from .record import FINISHED, INTERRUPTED, PAUSED, RUNNING, STOPPED, Record
from .registry import Registry, settle
from .run import Run

if TYPE_CHECKING:
    from ..calibration_inputs import Prepared
    from .pace import Pace

START = BACKGROUND_START  # the preset of another run that a run began at


@dataclass(frozen=True)
class Wish:
    """What a node asks for beside its calibration."""

    run_name: str
    if_changed: str
    idle_seconds: float
    slice_seconds: float
    prompt: dict[str, Any] | None
    """What makes the node's inputs (`rebuild.upstream`), and what of it may not be stored."""
    withheld: list[str]
    node: str


def attach(
    registry: Registry, wish: Wish, prepare: Callable[[Preset | None], Prepared], pace: Pace
) -> tuple[Run, Prepared]:
    """The run of these inputs, which it has from now on; it goes on unless its user let it rest.

    `prepare` makes the calibration, from the preset of another run where one is given. Raises
    ValueError for changed settings, with what has changed, and BusyError where another ComfyUI
    works on the run.
    """
    run, prepared = _find_or_make(registry, wish, prepare)
    registry.claim(run)
    with run.lock:
        record = run.record
        record.idle_seconds, record.slice_seconds = wish.idle_seconds, wish.slice_seconds
        if wish.prompt is not None:  # else the one of earlier still makes these inputs
            record.prompt, record.node, record.withheld = wish.prompt, wish.node, wish.withheld
        more = prepared.config.generations > (record.ended_with or 0)
        # Another reward, say, or one less; and what ended early is to go on.
        otherwise = set(prepared.config.ending) != set(record.ending) or (
            record.ended_early and not prepared.config.stop_early
        )
        begins = (
            (record.state not in (PAUSED, STOPPED, FINISHED))
            or (record.state == PAUSED and record.reason != "")
            or (record.state == FINISHED and (more or otherwise))
        )
        if begins or record.state == PAUSED:
            _hand_over(run, prepared, pace)
        if begins and record.state != RUNNING:
            registry.queue(run, concluding=False if record.state == FINISHED and more else None)
        else:
            run.save()
            registry.wake()
    return run, prepared


def attach_rebuilt(
    run: Run, prepare: Callable[[Preset | None], Prepared], pace: Pace
) -> tuple[Run, Prepared]:
    """Give a run the inputs that were made anew for it.

    Raises ValueError where they are no longer what the run began with, with what has changed.
    """
    start = run.folder / START
    prepared = prepare(load_preset(start) if start.exists() else None)
    held = runs.settings_of(run.folder)
    if held is None:
        raise ValueError(f"The settings of the run {run.id!r} are lost: {runs.CONFIG} is gone.")
    if changed := differing_settings(held, prepared.settings):
        raise ValueError(
            f"The run {run.id!r} cannot go on with what its workflow makes now: "
            f"{'; '.join(changed)}. Restore that and resume it, or queue the workflow with "
            "if_changed set to a new run."
        )
    with run.lock:
        _hand_over(run, prepared, pace)
        if not run.goes_on:  # it was stopped meanwhile
            settle(run)
    return run, prepared


def _find_or_make(
    registry: Registry,
    wish: Wish,
    prepare: Callable[[Preset | None], Prepared],
) -> tuple[Run, Prepared]:
    prepared = prepare(None)
    name, settings = wish.run_name, prepared.settings
    asked = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    named = runs.runs_named(name)
    for folder in reversed(named):
        known = registry.find(folder.name)
        # One that the optimiser's library has left behind goes on no more.
        left = known is not None and not known.record.replays and wish.if_changed != REFUSE
        if runs.settings_of(folder) == settings and not left:
            return known or _new(registry, folder.name, asked), prepared
        began = known is not None and known.record.asked == asked and (folder / START).exists()
        if known is not None and began and not left:
            return known, prepare(load_preset(folder / START))
    if named and wish.if_changed == REFUSE:
        changed = "; ".join(differing_settings(runs.settings_of(named[-1]), settings))
        raise ValueError(
            f"The run {named[-1].name!r} has other settings: {changed}. Restore them to go on with "
            "it, give this run another run_name, or choose in if_changed that it becomes a new run."
        )
    if named and wish.if_changed == FROM_RESULT:
        preset = _result_of(named[-1], prepared)
        prepared = prepare(preset)
        folder = runs.new_run(name, prepared.settings)
        save_preset(folder / START, preset, overwrite=True)
        return _new(registry, folder.name, asked), prepared
    return _new(registry, runs.new_run(name, settings).name, asked), prepared


def _result_of(folder: Path, prepared: Prepared) -> Preset:
    """The best that a run has found so far, read from its journal without computing anything."""
    journal_file, preset = folder / runs.JOURNAL, None
    if journal_file.is_file():
        with Journal.read(journal_file) as journal:
            preset = found_preset(journal, prepared.space.backbone)
    if preset is None:
        raise ValueError(
            f"The run {folder.name!r} has no result yet that a new run could begin at: let it go "
            f"on until its first validation, or set if_changed to {NEW!r}."
        )
    return preset


def _new(registry: Registry, run_id: str, asked: str) -> Run:
    now = time.time()
    # Not running before it has its inputs.
    return registry.add(Record(run_id, run_id, INTERRUPTED, created=now, queued=now, asked=asked))


def _hand_over(run: Run, prepared: Prepared, pace: Pace) -> None:
    """Give a run its inputs; a session that is open goes on with them."""
    with run.lock:
        if run.prepared is not None and run.prepared.config == prepared.config:
            prepared.evaluator.take_over(run.prepared.evaluator)
        else:
            run.close_session()
        run.prepared, run.pace = prepared, pace
        run.record.progress.generations = prepared.config.generations
