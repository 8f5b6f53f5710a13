"""Load Calibration Settings: a calibration as a file says it, also one of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths
from comfy_api.latest import io

from . import folders, sockets
from .run_settings import FILE

if TYPE_CHECKING:
    from ..calibri.settings import RunSettings

NONE = "none"
IN_OUTPUT = "output/calibri/"


class CalibriLoadSettings(io.ComfyNode):
    """Settings and prompts from a TOML file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CalibriLoadSettings",
            display_name="Load Calibration Settings",
            category="Calibri",
            **sockets.search_aliases("config", "toml", "calibrate from file", "command line"),
            description="A calibration's settings and prompts from a file: the settings.toml that "
            "every run leaves beside its report, or one of your own in ComfyUI's input folder. The "
            "command line takes the same file.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=[NONE, *settings_files()],
                    tooltip="A .toml file in ComfyUI's input folder, or a run's in output/calibri; "
                    "press R after a change of the folders.",
                )
            ],
            outputs=[
                sockets.Settings.Output(display_name="settings"),
                sockets.Prompts.Output(display_name="prompts"),
                sockets.Prompts.Output(display_name="held_out"),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str | None) -> bool | str:
        if file is None:  # linked; read when it is known
            return True
        try:
            _read(file)
        except (ValueError, ImportError) as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str | None) -> float:
        if file is None or file == NONE:
            return 0.0
        path = _path(file)
        return path.stat().st_mtime if path.is_file() else -1.0

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        settings = _read(file)
        if not settings.prompts:
            raise ValueError(f'{file} has no prompts: add a line prompts = ["…", "…"] to it.')
        # An optional input that is given None is as one that is not linked.
        return io.NodeOutput(settings, settings.prompts, settings.held_out or None)


def settings_files() -> list[str]:
    """What the node lists: TOML files of the input folder, and those of runs."""
    found, _ = folder_paths.recursive_search(
        folder_paths.get_input_directory(), excluded_dir_names=[".git"]
    )
    own = [name.replace("\\", "/") for name in found if name.lower().endswith(".toml")]
    runs = Path(folder_paths.get_output_directory()) / "calibri"
    left = sorted(f"{IN_OUTPUT}{file.parent.name}/{FILE}" for file in runs.glob(f"*/{FILE}"))
    return [*sorted(own), *left]


def _read(name: str) -> RunSettings:
    """The settings of a file, prompts read. Raises ValueError for one that leads elsewhere."""
    from ..calibri.settings_file import read_settings, with_prompts

    return with_prompts(read_settings(_path(name)), folders.input_path)


def _path(name: str) -> Path:
    if name == NONE:
        raise ValueError(
            "No settings are chosen: put a .toml file into ComfyUI's input folder, or run a "
            "calibration, then press R and choose it."
        )
    if not name.startswith(IN_OUTPUT):
        path = folders.input_path(name)
    else:
        # One plain name, so that nothing leads out of the folder of runs.
        run = folders.safe_name(name.removeprefix(IN_OUTPUT).removesuffix(f"/{FILE}")).name
        path = Path(folder_paths.get_output_directory()) / "calibri" / run / FILE
    if path.suffix.lower() != ".toml":
        raise ValueError(f"{name!r} is not a .toml file; choose one that is.")
    return path
