"""Rewards on workers of their own: where the model and a reward do not fit one device together."""

from __future__ import annotations

import itertools
import os
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..rewards.protocol import RewardUnavailableError

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ..calibri.likeness import Surroundings
    from ..rewards.protocol import Reward
    from .cluster_worker import Folders


class RewardWorker:
    """Scores in a process of its own, on a device of its own; its versions must be the `expected`
    ones (`surroundings.py`)."""

    def __init__(self, folders: Folders, cpu: bool | None, expected: Surroundings) -> None:
        folders.start(cpu)
        from .surroundings import refusal

        # Told when it is asked: an actor that cannot begin says nothing.
        self._refusal = refusal(expected)
        self._rewards: dict[str, Reward] = {}

    def score(
        self, name: str, packed: np.ndarray, order: list[int], prompts: list[str]
    ) -> np.ndarray:
        """Scores [B] of images [B, H, W, 3], which came with their axes in this order."""
        import torch

        from .headless import reward_named

        if self._refusal:
            raise ValueError(
                f"A worker for rewards on {platform.node()} is let go: {self._refusal}"
            )
        if name not in self._rewards:
            self._rewards[name] = reward_named(name)
        reward = self._rewards[name]
        with torch.inference_mode():
            images = torch.from_numpy(packed.copy()).permute(
                [order.index(i) for i in range(packed.ndim)]
            )
            scores = reward.score(images, prompts)
        return torch.as_tensor(scores).detach().cpu().double().numpy()


class DistantReward:
    """A reward whose scores come from reward workers in turn; its own weights are never loaded."""

    differentiable = False

    def __init__(self, local: Reward, called: str, workers: Sequence[Any]) -> None:
        self.name, self.card = local.name, local.card
        for optional in ("weights", "accepts"):
            if hasattr(local, optional):
                setattr(self, optional, getattr(local, optional))
        self._called = called
        first = os.getpid() % len(workers)  # not all begin at the same one
        self._workers = itertools.cycle([*workers[first:], *workers[:first]])

    def score(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """As the reward does."""
        import ray
        import torch

        # In the order that they lie in memory: a network's last bits depend on it.
        order = sorted(range(images.ndim), key=images.stride, reverse=True)
        packed = images.detach().cpu().permute(order).contiguous().numpy()
        worker = next(self._workers)
        try:
            scores = ray.get(worker.score.remote(self._called, packed, order, list(prompts)))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None  # without where it was raised
        except ray.exceptions.RayError as error:
            raise RewardUnavailableError(
                f"The worker of the reward {self.name} is gone ({type(error).__name__}): look at "
                "its machine and its log. The run goes on where it stopped when it is called again."
            ) from error
        return torch.from_numpy(scores.copy())
