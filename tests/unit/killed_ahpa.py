"""A training that kills itself after three steps: python killed_ahpa.py PACKAGE_PARENT FOLDER."""

import os
import signal
import sys
from pathlib import Path

import torch

torch.set_num_threads(1)
sys.path[:0] = [sys.argv[1], str(Path(__file__).parent)]

from ahpa_subject import TinySubject, trainer  # noqa: E402


def watch(run):
    if run.loop.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)


trainer(TinySubject(), Path(sys.argv[2]), steps=5).train(watch)
