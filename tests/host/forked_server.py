"""ComfyUI servers that start in a few seconds and may be killed, for tests that restart them."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from comfy_server import ComfyServer
from project_folders import environment_variables

PROGRAM = Path(__file__).with_name("fork_server.py")
NODES = Path(__file__).with_name("background_nodes.py")


class ForkServer:
    """The running `fork_server.py`; a context manager."""

    def __init__(self, folder: Path) -> None:
        """`folder` gets what the program itself prints."""
        self._errors = (folder / "fork_server.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment_variables(PYTHONUNBUFFERED="1"),
            text=True,
        )
        self._ready = False

    def fork(self, comfyui: Path, arguments: Sequence[str], log: Path) -> ForkedProcess:
        """A child that runs ComfyUI's main.py with `arguments`."""
        assert self._process.stdin is not None
        if not self._ready:
            assert self._answer() == "ready"
            self._ready = True
        order = {"comfyui": str(comfyui), "arguments": list(arguments), "log": str(log)}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return ForkedProcess(int(self._answer()))

    def close(self) -> None:
        """End the program; children that still run go on."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._errors.close()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the fork server has ended: see fork_server.log"
        return line.strip()

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ForkedProcess:
    """A process that is not our child, with the part of subprocess.Popen that ComfyServer uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None  # 0 once it has ended: nobody knows the real one

    def poll(self) -> int | None:
        """None while it runs."""
        if self.returncode is None:
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                self.returncode = 0
        return self.returncode

    def send_signal(self, number: int) -> None:
        """As kill(2); nothing where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = 60) -> int:
        """Return when it has ended; subprocess.TimeoutExpired if it does not."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(0.005)
        return code


class ForkedServer(ComfyServer):
    """A ComfyServer out of a ForkServer, with the tests' own nodes (`background_nodes.py`)."""

    def __init__(
        self,
        fork_server: ForkServer,
        comfyui: Path,
        folder: Path,
        *,
        options: Sequence[str] = (),
    ) -> None:
        super().__init__(comfyui, folder, options=options)
        self._fork_server = fork_server
        own = folder / "base" / "custom_nodes" / NODES.name
        own.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(NODES, own)

    def limit_files(self, size: int | None) -> None:
        """Let no file grow beyond `size` bytes, as on a full disk; None frees the disk again."""
        assert self.process is not None
        unlimited = resource.RLIM_INFINITY
        soft = unlimited if size is None else size
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (soft, unlimited))

    def kill(self) -> None:
        """kill -9, and return when it is gone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def _launch(self) -> None:
        arguments = self._command()[2:]  # without "python main.py"
        self.process = self._fork_server.fork(self.comfyui, arguments, self.log)
