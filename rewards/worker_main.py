"""What runs in a worker process: one scorer at the end of two pipes. `worker.py` is the other end.

This file runs by itself under the worker's own Python, 3.9 or newer, and needs nothing beside it.
A frame is a header, a JSON object and raw bytes. Requests come from what was standard input and
answers go to what was standard output; both are moved aside before any code of the scorer's runs,
so that what it prints ends up in the log.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import queue
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

MAGIC = b"CLB1"
HEADER = struct.Struct(">4sII")  # magic, bytes of JSON, bytes behind it
MOST_TEXT = 16 * 2**20  # bytes of JSON; prompts and scores are far smaller
PIPE_BYTES = 2**20  # at once, where the system lets a pipe grow
F_SETPIPE_SZ = 1031  # Linux's; fcntl has the name since Python 3.10


class FrameError(Exception):
    """What came is no frame; `seen` is its beginning."""

    def __init__(self, seen: bytes) -> None:
        super().__init__(f"no frame: {seen!r}")
        self.seen = seen


def send(stream: Any, message: Mapping[str, Any], data: Any = b"") -> None:
    """Write a frame to an unbuffered `stream`; `data` is contiguous bytes of any shape."""
    text = json.dumps(message).encode()
    raw = memoryview(data).cast("B")
    for part in (memoryview(HEADER.pack(MAGIC, len(text), len(raw)) + text), raw):
        while part:
            part = part[stream.write(part) :]


def receive(stream: Any) -> tuple[dict[str, Any], bytearray]:
    """Read a frame. EOFError where the other end is gone, FrameError where this is none."""
    head = _exactly(stream, HEADER.size)
    magic, text, data = HEADER.unpack(head)
    if magic != MAGIC or text > MOST_TEXT:
        raise FrameError(bytes(head))
    body = _exactly(stream, text)
    try:
        message = json.loads(body)
    except ValueError:
        raise FrameError(bytes(body[:80])) from None
    if not isinstance(message, dict):
        raise FrameError(bytes(body[:80]))
    return message, _exactly(stream, data)


def widen(stream: Any) -> None:
    """Let the pipe hold more than 64 KiB, where the system can."""
    if not sys.platform.startswith("linux"):
        return
    import fcntl

    with contextlib.suppress(OSError):  # the user's limit for all pipes together
        fcntl.fcntl(stream, F_SETPIPE_SZ, PIPE_BYTES)


def _exactly(stream: Any, count: int) -> bytearray:
    whole = bytearray(count)
    left = memoryview(whole)
    while left:
        got = stream.readinto(left)
        if not got:
            raise EOFError
        left = left[got:]
    return whole


def _private_streams() -> tuple[Any, Any]:
    """Requests and answers, on descriptors that neither the scorer nor its children know."""
    requests, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    if sys.platform == "win32":
        import msvcrt

        msvcrt.setmode(requests, os.O_BINARY)
        msvcrt.setmode(answers, os.O_BINARY)
    return open(requests, "rb", buffering=0), open(answers, "wb", buffering=0)


def _listen(requests: Any, inbox: queue.SimpleQueue[tuple[dict[str, Any], bytearray]]) -> NoReturn:
    """Queue requests. When ComfyUI is gone, end the process, whatever it is computing."""
    try:
        while True:
            inbox.put(receive(requests))
    finally:
        if sys.platform != "win32" and os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)  # its children too, which may hold a GPU
        os._exit(0)


def _scorer(entry: str, folder: str, options: Mapping[str, Any]) -> Any:
    """The object that scores: `module:Class`, or `file.py:Class` in `folder`."""
    source, _, name = entry.rpartition(":")
    if source.endswith(".py"):
        spec = importlib.util.spec_from_file_location(
            "calibri_scorer", os.path.join(folder, source)
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(source)
    return getattr(module, name)(**options)


def _images(data: bytearray, shape: list[int]) -> Any:
    """Bytes [B, H, W, 3] as NumPy's array, or as a memoryview where there is no NumPy."""
    view = memoryview(data).cast("B", shape)
    try:
        import numpy
    except ImportError:
        return view
    return numpy.asarray(view)


def _numbers(scores: Any) -> list[float]:
    """Lists, tuples, arrays and tensors of one number per image."""
    values = scores.tolist() if hasattr(scores, "tolist") else list(scores)
    return [float(value) for value in values]


def _answer(scorer: Any, request: dict[str, Any], data: bytearray) -> dict[str, Any]:
    try:
        images = _images(data, request["shape"])
        return {"scores": _numbers(scorer.score(images, request["prompts"]))}
    except Exception as error:
        return _failure(error)


def _failure(error: BaseException) -> dict[str, Any]:
    traceback.print_exception(type(error), error, error.__traceback__)
    return {"error": str(error), "type": type(error).__name__}


def main() -> int:
    """Load the scorer that the JSON in argv names, and answer until the requests end."""
    # Python put this folder first on the path; its neighbours must not stand for other modules.
    own = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != own]
    requests, answers = _private_streams()
    widen(answers)
    inbox: queue.SimpleQueue[tuple[dict[str, Any], bytearray]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, inbox), daemon=True).start()
    try:
        scorer = _scorer(**json.loads(sys.argv[1]))
    except BaseException as error:
        send(answers, _failure(error))
        return 1
    send(answers, {"ready": True})
    while True:
        request, data = inbox.get()
        send(answers, _answer(scorer, request, data))


if __name__ == "__main__":
    sys.exit(main())
