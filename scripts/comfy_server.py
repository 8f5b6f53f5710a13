"""A real ComfyUI server with this pack in it, as a child process that leaves the ComfyUI folder
untouched.

Its base, user, input, output and temp folders and its database lie below one folder of .run. Talk
to it with comfy_client.ComfyClient.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from project_folders import ROOT, environment_variables, link_folder
from setup_error import SetupError

PACK = "comfyui-calibri"
START_SECONDS = 300  # the first start compiles every package's bytecode


class ComfyServer:
    """`with ComfyServer(comfyui, folder) as server:` runs ComfyUI at `server.url` until the block
    ends."""

    def __init__(
        self,
        comfyui: Path,
        folder: Path,
        *,
        python: Path = Path(sys.executable),
        port: int = 0,
        cpu: bool = True,
        options: Sequence[str] = (),
    ) -> None:
        """`folder` gets base/, user/, input/, output/, temp/ and the log; `port` 0 takes a free
        one; `cpu` False leaves the choice of the device to ComfyUI; `options` are added to
        main.py's command line."""
        self.comfyui = comfyui
        self.folder = folder
        self.python = python
        self.port = port or _free_port()
        self.cpu = cpu
        self.options = list(options)
        self.log = folder / "comfyui.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> Path:
        """Where Save nodes write."""
        return self.folder / "output"

    @property
    def models(self) -> Path:
        """ComfyUI's models folder, where presets are saved."""
        return self.folder / "base" / "models"

    def __enter__(self) -> ComfyServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start ComfyUI and return when it answers; SetupError with the end of its log if it does
        not."""
        if not _is_free(self.port):
            raise SetupError(f"Port {self.port} is taken by another program: choose another one.")
        for name in ("base/custom_nodes", "base/models", "user", "input", "output", "temp"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        link_folder(self.folder / "base" / "custom_nodes" / PACK, ROOT)
        self._launch()
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server: asked first, as Ctrl-C would, then told."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGINT)
            try:
                self.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def read_log(self) -> str:
        """Everything the server has printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def import_seconds(self) -> float:
        """What the pack cost at start-up, from ComfyUI's "Import times for custom nodes"."""
        found = re.search(rf"([\d.]+) seconds: .*{PACK}\s*$", self.read_log(), re.MULTILINE)
        if found is None:
            raise SetupError(f"ComfyUI did not load the pack; its log is {self.log}.")
        return float(found.group(1))

    def _command(self) -> list[str]:
        place = self.folder
        return [
            *(str(self.python), "main.py", "--port", str(self.port)),
            *("--base-directory", str(place / "base"), "--user-directory", str(place / "user")),
            *(
                "--input-directory",
                str(place / "input"),
                "--output-directory",
                str(place / "output"),
            ),
            *("--temp-directory", str(place / "temp")),
            *("--database-url", f"sqlite:///{(place / 'user' / 'comfyui.db').as_posix()}"),
            *("--disable-auto-launch", "--disable-api-nodes"),
            *(["--cpu"] if self.cpu else []),
            *self.options,
        ]

    def _launch(self) -> None:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command(),
                cwd=self.comfyui,
                env=environment_variables(PYTHONUNBUFFERED="1"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _wait_until_it_answers(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise SetupError(
                    f"{self._log_end()}\nComfyUI in {self.comfyui} ended with code "
                    f"{self.process.returncode} while starting: its log ({self.log}) says why."
                )
            try:
                urllib.request.urlopen(f"{self.url}/system_stats", timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise SetupError(
            f"{self._log_end()}\nComfyUI in {self.comfyui} did not answer within "
            f"{START_SECONDS} s: its log ({self.log}) says how far it came."
        )

    def _log_end(self) -> str:
        return "\n".join(self.read_log().splitlines()[-25:])


def _is_free(port: int) -> bool:
    """Whether nothing answers at `port`; asked before another ComfyUI there is taken for ours."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
