"""`train` that kills itself after some steps: killed_train.py PACKAGE_PARENT STEPS OPTION…"""

import os
import signal
import sys

import torch

torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])

from comfyui_calibri.cli import app  # noqa: E402
from comfyui_calibri.commands.train_watch import Watch  # noqa: E402


def killed(_watch, run):
    if run.trainer.loop.step == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)


Watch.__call__ = killed
app(["train", *sys.argv[3:]])
