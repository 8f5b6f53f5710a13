"""Calibrate (background): begins a calibration that advances while ComfyUI is idle."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from .. import sockets
from ..calibrate import calibration_inputs, check_run_name, ending_inputs
from ..messages import show_on_node
from .rebuild import is_link, upstream

if TYPE_CHECKING:
    from ...calibri.presets import Preset
    from ..calibration_inputs import Prepared

REFUSE, FROM_RESULT, NEW = "refuse", "new run from its result", "new run"
IF_CHANGED = (REFUSE, FROM_RESULT, NEW)


class CalibriCalibrateBackground(io.ComfyNode):
    """Calibrate, without taking ComfyUI away from its user."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriCalibrateBackground",
            display_name="Calibrate (background)",
            category="Calibri",
            **sockets.search_aliases(
                "optimize while idle", "overnight", "search coefficients", "queue when idle"
            ),
            description="Calibrate that runs while ComfyUI is idle and makes room for your own "
            "prompts. Returns at once with the best preset so far; queue it again for a better "
            "one. The tab Calibri runs shows it, pauses it and goes on with it after a restart.",
            inputs=[*calibration_inputs(), *_background_inputs(), *ending_inputs()],
            outputs=[
                sockets.Preset.Output(display_name="preset"),
                io.Image.Output(display_name="report"),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, run_name: str | None) -> bool | str:
        return check_run_name(run_name)

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> str:
        """Another word whenever a run of these inputs has a new best."""
        from . import job

        given = {name: value for name, value in inputs.items() if value is not None}
        return job.bests(_digest(given))

    @classmethod
    def execute(
        cls,
        run_name: str,
        idle_seconds: float = 5.0,
        slice_seconds: float = 60.0,
        if_changed: str = REFUSE,
        **inputs: Any,
    ) -> io.NodeOutput:
        from ..calibration_inputs import prepare
        from ..run_settings import settings_of, with_settings
        from ..start_note import with_start
        from . import job
        from .attach import Wish, attach, attach_rebuilt
        from .outputs import outputs
        from .pace import Pace

        registry = job.registry()
        inputs = with_settings({**inputs, "run_name": run_name})
        run_name = inputs.pop("run_name")
        number, prompt = cls.hidden.unique_id, cls.hidden.prompt or {}
        pace = Pace()

        def prepared_from(start: Preset | None) -> Prepared:
            begin = {} if start is None else {"start_from": start}
            return prepare(**{**inputs, **begin}, watch=pace.watch)

        flight = job.flight_of(number)
        if flight is not None:
            run, prepared = attach_rebuilt(flight.run, prepared_from, pace)
            flight.worked = True
        else:
            graph, withheld = upstream(prompt, number)
            wish = Wish(run_name, if_changed, idle_seconds, slice_seconds, graph, withheld, number)
            run, prepared = attach(registry, wish, prepared_from, pace)
            if number in prompt:
                given = prompt[number]["inputs"]
                job.remember(_digest({n: v for n, v in given.items() if not is_link(v)}), run)
        if flight is None:
            run.settings = settings_of(run_name, inputs, prepared, prompt, number)
            run.start = inputs.get("start_from")
        preset, report, text = outputs(run, prepared, registry)
        text = with_start(text, inputs.get("start_from"), prepared)
        show_on_node(cls.hidden, text)
        return io.NodeOutput(preset, report, ui={"text": (text,)})


def _digest(given: dict[str, Any]) -> str:
    text = json.dumps(given, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _background_inputs() -> list[io.Input]:
    return [
        sockets.advanced(
            io.Float.Input(
                "idle_seconds",
                default=5.0,
                min=0.0,
                max=86_400.0,
                step=0.5,
                optional=True,
                tooltip="How long ComfyUI's queue must have been empty before the run takes its "
                "next turn.",
            )
        ),
        sockets.advanced(
            io.Float.Input(
                "slice_seconds",
                default=60.0,
                min=0.0,
                max=86_400.0,
                step=1.0,
                optional=True,
                tooltip="How long one turn lasts where nobody waits; 0 is one batch. What "
                "waits for an empty queue waits as long.",
            )
        ),
        sockets.advanced(
            io.Combo.Input(
                "if_changed",
                options=list(IF_CHANGED),
                default=REFUSE,
                optional=True,
                tooltip="Where a run of this name has other settings, or was made with another "
                "model: refuse and say what differs; begin a new run at its best preset; or begin "
                "a new run at the plain model.",
            )
        ),
    ]
