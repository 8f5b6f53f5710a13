"""The part of scripts/demo that runs in .venv: both workflows in a real ComfyUI, and their results.

python scripts/run_demo.py COMFYUI '{"generations": null, "port": 0, "keep_server": false}'
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from comfy_client import ComfyClient, PromptError
from comfy_server import ComfyServer
from progress import say, step
from project_folders import ROOT, RUN
from setup_error import SetupError
from workflow_to_prompt import WorkflowError

Prompt = dict[str, dict[str, Any]]
SECONDS = 4 * 3600  # for one workflow; a slow machine and many generations
REPORT_EVERY = 10  # seconds between two lines of progress where there is no terminal


def main(comfyui: Path, generations: int | None, port: int, keep_server: bool) -> None:
    """Run both workflows and say where everything is."""
    cpu = not (torch.cuda.is_available() or torch.xpu.is_available() or _is_apple_silicon())
    server = ComfyServer(comfyui, RUN, port=port, cpu=cpu)
    with step(f"Starting ComfyUI on the {'CPU' if cpu else 'accelerator'} ({server.log})"):
        server.start()
    try:
        client = ComfyClient(server.url)
        with step(f"Calibrating; ComfyUI's page shows it as well: {server.url}"):
            prompt = client.prompt_from_workflow(find_workflow("- calibrate"))
            if generations is not None:
                set_input(prompt, "CalibriCalibrate", "generations", generations)
            began = time.time()
            calibrated = client.run(prompt, Progress(prompt), SECONDS).outputs
            presets = files_since(server.models / "calibri", began)
        with step("Generating with the preset"):
            prompt = client.prompt_from_workflow(find_workflow("a quick start"))
            for preset in presets:
                name = preset.relative_to(server.models / "calibri").as_posix()
                set_input(prompt, "CalibriLoadPreset", "preset_name", name)
            generated = client.run(prompt, Progress(prompt), SECONDS).outputs
        show_results(server, calibrated, generated, presets)
        if keep_server:
            say(f"\nComfyUI runs at {server.url} (Templates > Calibri); Ctrl-C ends it.")
            while True:
                time.sleep(3600)
    finally:
        server.stop()


def find_workflow(ending: str) -> Path:
    """The example workflow whose name ends in `ending`; SetupError unless there is exactly one."""
    found = [file for file in (ROOT / "workflows").glob("*.json") if file.stem.endswith(ending)]
    if len(found) != 1:
        raise SetupError(
            f"{ROOT / 'workflows'} holds {len(found)} workflows named like {ending!r}, not one: "
            "restore the folder with git checkout workflows."
        )
    return found[0]


def set_input(prompt: Prompt, kind: str, name: str, value: Any) -> None:
    """Give the nodes of class `kind` another value for their input `name`."""
    for node in prompt.values():
        if node["class_type"] == kind:
            node["inputs"][name] = value


def files_since(folder: Path, moment: float) -> list[Path]:
    """The files below `folder` written after `moment` (seconds since the epoch), oldest first."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return sorted(
        (file for file in files if file.stat().st_mtime >= moment),
        key=lambda file: file.stat().st_mtime,
    )


def show_results(
    server: ComfyServer,
    calibrated: Mapping[str, Any],
    generated: Mapping[str, Any],
    presets: list[Path],
) -> None:
    """Say what came out, and where each file is."""
    pictures = [*_pictures(server, calibrated), *_pictures(server, generated)]
    say("\nResults")
    for line in _texts(calibrated):
        say(f"  {line}")
    for folder in sorted({picture.parent for picture in pictures}):
        before_after = folder / "before_after.png"
        if before_after.exists():
            say(f"  before and after  {before_after}")
            say(f"  report            {folder / 'report.png'}, report.json")
        else:
            say(f"  pictures          {folder}")
    for preset in presets:
        say(f"  preset            {preset}")


def _pictures(server: ComfyServer, outputs: Mapping[str, Any]) -> Iterator[Path]:
    """The files of the pictures that output nodes saved."""
    for output in outputs.values():
        for shown in output.get("images", []):
            if shown["type"] == "output":
                yield server.output / shown["subfolder"] / shown["filename"]


def _texts(outputs: Mapping[str, Any]) -> Iterator[str]:
    for output in outputs.values():
        for text in output.get("text", []):
            yield from str(text).splitlines()


def _is_apple_silicon() -> bool:
    return bool(torch.backends.mps.is_available())


class Progress:
    """Prints what ComfyUI says of a prompt: the node at work, its bar, its words."""

    def __init__(self, prompt: Prompt) -> None:
        self._titles = {number: node["_meta"]["title"] for number, node in prompt.items()}
        self._terminal = sys.stdout.isatty()
        self._began = self._reported = time.monotonic()
        self._bar = ""

    def __call__(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "executing" and data["node"] in self._titles:
            self._line(self._titles[data["node"]])
        elif kind == "progress_text":
            self._line(data["text"])
        elif kind == "progress":
            self._progress(data["value"], data["max"])

    def _progress(self, value: float, most: float) -> None:
        now = time.monotonic()
        bar = f"    {100 * value / max(most, 1):3.0f} %  {now - self._began:4.0f} s"
        if self._terminal:
            print(f"\r{bar}", end="", flush=True)
            self._bar = bar
        elif now - self._reported >= REPORT_EVERY:
            say(bar)
            self._reported = now

    def _line(self, text: str) -> None:
        """A line of its own, over the bar if that stands there."""
        for part in text.splitlines():
            covered = "\r" if self._bar else ""
            say(f"{covered}    {part}".ljust(len(self._bar)))
            self._bar = ""


if __name__ == "__main__":
    # So that a kill, too, ends ComfyUI on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main(Path(sys.argv[1]), **json.loads(sys.argv[2]))
    except (SetupError, PromptError, WorkflowError) as error:
        say(f"\n{error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("\nStopped.")
        sys.exit(130)
