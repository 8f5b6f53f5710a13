"""Rewards that the server-side file declares: computed in a worker's process or on another machine.

Neither has a gradient. Images travel in eight bits a channel: a score is that of the saved picture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .batch import check_batch, check_prompts, check_scores
from .declarations import ServerDeclaration, WorkerDeclaration
from .environment import command
from .http_scorer import HttpScorer
from .protocol import Card
from .waiting import Report
from .worker import Scorer, Worker

Ask = Callable[[np.ndarray, Sequence[str]], list[float]]
OWN_CODE = "see what its own code computes for these images"
ENVIRONMENTS, LOGS = "environments", "logs"


class ExternalReward:
    """A `Reward` whose scores `ask` gets for uint8 pixels [B, H, W, 3] and their prompts."""

    differentiable = False

    def __init__(
        self, name: str, declaration: WorkerDeclaration | ServerDeclaration, ask: Ask
    ) -> None:
        self.name = name
        self._declaration, self._ask = declaration, ask

    @property
    def card(self) -> Card:
        """What the declaration says."""
        return self._declaration.card

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores [B], on the CPU, of images [B, H, W, 3] in 0..1; their gradient ends here."""
        check_batch(self.name, images, prompts)
        if self._declaration.needs_prompt:
            check_prompts(self.name, prompts)
        rows = self._declaration.batch
        scores: list[float] = []
        for i in range(0, len(images), rows):
            part = as_bytes(images[i : i + rows])
            answer = torch.tensor(self._ask(part, prompts[i : i + rows]), dtype=torch.float32)
            scores += check_scores(self.name, answer, len(part), OWN_CODE).tolist()
        return torch.tensor(scores, dtype=torch.float32)


def as_bytes(images: Tensor) -> np.ndarray:
    """Images in 0..1 as contiguous uint8, rounded as they are when ComfyUI saves them."""
    pixels = torch.empty(images.shape, dtype=torch.uint8, device=images.device)
    # One by one: what is in between stays in the processor's cache, twice as fast for large ones.
    for image, out in zip(images.detach(), pixels, strict=True):
        out.copy_((image.float() * 255.0).round_().clamp_(0, 255))
    return pixels.cpu().numpy()


def external_reward(
    name: str,
    declaration: WorkerDeclaration | ServerDeclaration,
    folder: Path,
    report: Report,
    make_room: Callable[[], None] = lambda: None,
) -> ExternalReward:
    """The reward declared as `name`; a worker starts at the first score.

    `folder` is the declaration's: scripts are below it, environments and logs are kept there.
    `make_room` is called before a worker loads its weights. ValueError where its script is missing.
    """
    shown = shown_name(name, declaration, folder)
    if isinstance(declaration, ServerDeclaration):
        return ExternalReward(shown, declaration, HttpScorer(shown, declaration, report))
    made_of = declaration.made_of
    scorer = Scorer(
        entry=declaration.entry,
        folder=folder,
        log=folder / LOGS / f"{made_of.folder(name, folder).name}.log",
        options=declaration.options,
        variables=declaration.variables,
        start_seconds=declaration.start_timeout,
        batch_seconds=declaration.timeout,
    )

    def python(report: Report) -> list[str]:
        made = command(name, made_of, folder / ENVIRONMENTS, folder, report)
        make_room()
        return made

    worker = Worker(shown, scorer, python)
    return ExternalReward(shown, declaration, partial(worker.score, report=report))


def shown_name(name: str, declaration: WorkerDeclaration | ServerDeclaration, folder: Path) -> str:
    """`name` with all that answers depend on, as far as it is known here: for journals.

    A worker's has a hash of its packages, code and options. ValueError where its script is missing.
    """
    words = [declaration.version] if declaration.version else []
    if isinstance(declaration, WorkerDeclaration):
        words.append(_hash(declaration, folder))
    return f"{name} ({', '.join(words)})" if words else name


def _hash(declaration: WorkerDeclaration, folder: Path) -> str:
    parts = [declaration.made_of.key, declaration.entry, dict(declaration.options)]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    if declaration.script is not None:
        script = folder / declaration.script
        if not script.is_file():
            raise ValueError(f"There is no {script}; a declared reward's entry names it.")
        digest.update(script.read_bytes())
    return digest.hexdigest()[:8]
