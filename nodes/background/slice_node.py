"""The node that a slice's prompt executes. Nobody adds it by hand."""

from __future__ import annotations

import dataclasses

from comfy_api.latest import io

# Keeps it out of the node search where ComfyUI knows how.
_HIDDEN = (
    {"is_dev_only": True}
    if "is_dev_only" in {field.name for field in dataclasses.fields(io.Schema)}
    else {"is_deprecated": True}
)


class CalibriSlice(io.ComfyNode):
    """One slice of a run in the background."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriSlice",
            display_name="Calibration slice (internal)",
            category="Calibri/internal",
            description="A piece of a calibration in the background, queued by Calibri itself "
            "while ComfyUI is idle. In a workflow it does nothing.",
            inputs=[
                io.String.Input("run", tooltip="The run's id."),
                io.Int.Input("slice", min=1, max=2**53, tooltip="Counts the run's slices."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
            not_idempotent=True,
            **_HIDDEN,
        )

    @classmethod
    def execute(cls, run: str, slice: int) -> io.NodeOutput:
        from . import job

        flight = job.flight_of(cls.hidden.unique_id)
        if flight is None or flight.rebuilds or flight.run.id != run:
            raise ValueError(
                "This node belongs to a calibration in the background, which queues it itself: "
                "use Calibrate (background) in its place."
            )
        job.work(flight)
        return io.NodeOutput()
