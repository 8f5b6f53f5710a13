"""A run killed again and again: python killed_runs.py PACKAGE_PARENT JOURNAL SEED KILLS.

Each time a fork goes on with the run and is killed at a random moment, in a batch, between two, or
while it opens the journal. Prints how many runs were killed and how many batches began in them.
"""

import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

package, journal, seed, kills = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
sys.path[:0] = [package, str(Path(__file__).parent)]

from exact_run import CONFIG, ExactEvaluator, run  # noqa: E402

BATCH = b"b"


class Telling(ExactEvaluator):
    """Says when a batch begins, and takes a moment over it."""

    def __init__(self, told: int):
        super().__init__()
        self.told = told

    def run(self, *arguments):
        os.write(self.told, BATCH)
        time.sleep(0.002)
        return super().run(*arguments)


def killed_once(chance: random.Random) -> tuple[bool, int]:
    """Whether the run was killed before its end, and how many batches began in it."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        try:
            run(journal, Telling(tell), replace(CONFIG, generations=30))
        finally:
            os._exit(0)
    os.close(tell)
    begun = 0
    for _ in range(batches := chance.randrange(7)):
        begun += len(os.read(told, 1))
    time.sleep(chance.uniform(0, 0.005 if batches else 0.05))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    while more := os.read(told, 4096):
        begun += len(more)
    os.close(told)
    return os.WIFSIGNALED(status), begun


if __name__ == "__main__":
    runs = [killed_once(chance) for chance in [random.Random(seed)] for _ in range(kills)]
    print(sum(killed for killed, _ in runs), sum(begun for _, begun in runs))
