"""What `train` shows and keeps on its way, and how it is stopped between two steps."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

import torch

from ..ahpa.autoencoder import VAE, Scaling
from ..ahpa.full_run import FullRun
from ..ahpa.preview import PICTURES, preview
from ..ahpa.targets import spread
from ..calibri.report import save_picture
from ..training.processes import Processes
from .exit_codes import Terminated
from .progress import Bar

PREVIEWS = "previews"
_TOLD = 60  # seconds between two lines of losses


class Stop:
    """Ctrl-C and SIGTERM, taken where a step has not begun; a second one ends the process at once,
    as a kill would: a state that is half a step old must not be kept.
    """

    def __init__(self, processes: Processes, device: torch.device) -> None:
        self._processes, self._device = processes, device
        self._asked: type[BaseException] | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within, signals are remembered."""
        before = {sign: signal.signal(sign, self._ask) for sign in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sign, handler in before.items():
                signal.signal(sign, handler)

    def look_up(self) -> None:
        """Raise KeyboardInterrupt or Terminated, in all processes, where one of them was asked."""
        asked = self._asked
        if self._processes.count > 1:
            number = 0.0 if asked is None else 1.0
            share = self._processes.mean(torch.tensor(number, device=self._device))
            if float(share) > 0:
                raise asked or KeyboardInterrupt
        elif asked is not None:
            raise asked

    def _ask(self, sign: int, _frame: FrameType | None) -> None:
        self._asked = Terminated if sign == signal.SIGTERM else KeyboardInterrupt
        signal.signal(sign, signal.SIG_DFL)


class Watch:
    """Counts steps, tells losses now and then, draws previews and keeps checkpoints."""

    def __init__(
        self,
        shown: Bar,
        vae: VAE,
        scaling: Scaling,
        previews: int,
        checkpoints: int,
        main: bool,
    ) -> None:
        """`previews` and `checkpoints` are steps between two; 0 makes none."""
        self._shown, self._vae, self._scaling, self._main = shown, vae, scaling, main
        self._previews, self._checkpoints = previews, checkpoints
        self._told = time.monotonic()

    def __call__(self, run: FullRun) -> None:
        """After each step."""
        loop, total = run.trainer.loop, run.trainer.recipe.steps
        if not self._main:
            return
        self._shown.count(loop.step, total)
        if time.monotonic() - self._told >= _TOLD:
            self._shown.say(f"Step {loop.step} of {total}: {in_words(loop.history.last_means())}")
            self._told = time.monotonic()
        if self._previews and (loop.step % self._previews == 0 or loop.step == total):
            rows = spread(len(run.trainer.subject.latents), PICTURES)
            drawn = preview(run.trainer, self._vae, self._scaling, rows)
            save_picture(run.folder / PREVIEWS / f"step-{loop.step:06}.png", drawn)
        if self._checkpoints and loop.step % self._checkpoints == 0 and loop.step < total:
            run.checkpoint()


def in_words(losses: Mapping[str, float]) -> str:
    """Names and numbers of losses."""
    return ", ".join(f"{name} {mean:.4g}" for name, mean in losses.items())
