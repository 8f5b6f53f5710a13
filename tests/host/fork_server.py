"""ComfyUI's start in a few seconds: a process that holds the libraries and forks servers.

Most of ComfyUI's start is importing torch, transformers and the like. This program imports them
once, none of ComfyUI's own modules among them, and then, for each line of JSON on its standard
input, forks a child that runs ComfyUI's main.py as `python main.py` would. The child's process id
is the line it answers with. A child may be killed at any moment; the next one knows nothing of it.

Only where there is fork(). `forked_server.py` talks to it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import sys
import traceback
from typing import Any

# What takes ComfyUI's start its time, and a calibration's; what is not installed is left out.
LIBRARIES = (
    "torch",
    "torch._dynamo",
    "torch.testing",
    "torchvision",
    "torchaudio",
    "torchsde",
    "transformers",
    "transformers.models.clip.tokenization_clip",
    "kornia",
    "spandrel",
    "safetensors.torch",
    "scipy.integrate",
    "scipy.optimize",
    "scipy.signal",
    "scipy.stats",
    "av",
    "aiohttp.web",
    "sqlalchemy.orm",
    "sqlalchemy.dialects.sqlite",
    "alembic.command",
    "alembic.config",
    "PIL.ImageOps",
    "pydantic_settings",
    "yaml",
    "psutil",
    "requests",
    "einops",
    "tqdm",
    "comfy_kitchen",
    "cma",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
)


def main() -> None:
    """Import, say so, and fork until the input ends."""
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    gc.freeze()  # a collection in a child would copy every page
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the dead
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            _become_comfyui(order)
        print(child, flush=True)


def _become_comfyui(order: dict[str, Any]) -> None:
    """Run main.py of the folder `comfyui` with `arguments`; it prints into the file `log`."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        streams = (os.devnull, os.O_RDONLY), (order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        nothing, log = (os.open(path, flags) for path, flags in streams)
        for stream, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(stream, target)
        os.chdir(order["comfyui"])
        sys.path[0] = order["comfyui"]
        sys.argv = ["main.py", *order["arguments"]]
        runpy.run_path("main.py", run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
