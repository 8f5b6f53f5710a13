"""A training killed in the middle, and one that is not: python killed_training.py PARENT FOLDER.

Prints the final weights of both as hexadecimal bytes, a line each.
"""

import os
import signal
import sys
import time
from pathlib import Path

package, folder = sys.argv[1], Path(sys.argv[2])
sys.path[:0] = [package, str(Path(__file__).parent)]

import torch  # noqa: E402
from toy_training import RECIPE, SPLIT, ToyModule, ToyTrainee, score  # noqa: E402

from comfyui_calibri.qrm.training import train  # noqa: E402

KILLED_AFTER = 8  # steps, of which the state of step 6 is kept


def trained(where: Path, watch=None) -> str:
    module = ToyModule()
    train(ToyTrainee(), module, score, RECIPE, SPLIT, folder=where, watch=watch)
    return b"".join(p.detach().numpy().tobytes() for p in module.parameters()).hex()


def killed() -> None:
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:

        def watch(step, losses, stopping):
            os.write(tell, b"s")
            if step == KILLED_AFTER:
                time.sleep(60)  # until the kill comes

        trained(folder / "killed", watch)
        os._exit(1)
    for _ in range(KILLED_AFTER):
        os.read(told, 1)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)


if __name__ == "__main__":
    torch.set_num_threads(1)  # threads do not survive a fork
    print(trained(folder / "whole"))
    killed()
    begun = []
    print(trained(folder / "killed", lambda step, losses, stopping: begun.append(step)))
    assert begun[0] == 7, begun
