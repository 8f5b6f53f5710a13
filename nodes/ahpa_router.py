"""Routers of AHPA as files in models/ahpa."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io

from . import folders, sockets
from .messages import show_on_node
from .saving import save

if TYPE_CHECKING:
    from ..ahpa.router_file import TrainedRouter


class CalibriLoadAHPARouter(io.ComfyNode):
    """Reads a router's file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriLoadAHPARouter",
            display_name="Load AHPA Router",
            category="Calibri/training",
            **sockets.search_aliases("alignment", "router"),
            description="Loads a router of AHPA from models/ahpa: to look at, or for the methods "
            "reversed and frozen of Train LoRA with AHPA.",
            inputs=[
                io.Combo.Input(
                    "router_name",
                    options=folders.router_files(),
                    tooltip="A .safetensors file in models/ahpa.",
                )
            ],
            outputs=[sockets.Router.Output(display_name="router")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, router_name: str | None) -> bool | str:
        if router_name is None:  # linked; read when it is known
            return True
        from ..ahpa.router_file import load_router

        try:
            load_router(folders.router_path(router_name))
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, router_name: str | None) -> float:
        if router_name is None:  # linked; ComfyUI watches what it is linked to
            return 0.0
        return folders.router_path(router_name).stat().st_mtime

    @classmethod
    def execute(cls, router_name: str) -> io.NodeOutput:
        from ..ahpa.router_file import load_router

        trained = load_router(folders.router_path(router_name))
        show_on_node(cls.hidden, _words(trained))
        return io.NodeOutput(trained)


class CalibriSaveAHPARouter(io.ComfyNode):
    """Writes a router's file, never over another."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriSaveAHPARouter",
            display_name="Save AHPA Router",
            category="Calibri/training",
            **sockets.search_aliases("save router", "alignment"),
            description="Saves a router of AHPA to models/ahpa under the next free number.",
            inputs=[
                sockets.Router.Input("router", tooltip="From Train LoRA with AHPA."),
                sockets.filename_prefix("router"),
            ],
            outputs=[],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None) -> bool | str:
        return folders.check_prefix(filename_prefix)

    @classmethod
    def execute(cls, router: TrainedRouter | None, filename_prefix: str) -> io.NodeOutput:
        from ..ahpa.router_file import save_router

        if router is None:
            raise ValueError(
                "The training's method learns no router: choose ahpa, static or one of its "
                "ablations as its method, or disconnect this node."
            )
        path = folders.new_router_path(filename_prefix)
        return save(cls.hidden, path, lambda path: save_router(path, router))


def _words(trained: TrainedRouter) -> str:
    """What a router was trained for."""
    groups = ", ".join(dict.fromkeys(level.group for level in trained.levels))
    count = len(trained.levels)
    recipe = trained.training.get("recipe")
    steps = recipe.get("steps") if isinstance(recipe, dict) else None
    trained_for = "" if steps is None else f"; trained for {steps} steps"
    return f"Method {trained.method}: weighs {count} levels ({groups}){trained_for}."
