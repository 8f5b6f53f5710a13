"""ComfyUI on the workers of a Ray cluster: each starts it in its own process and loads the model
once; the driver loads none.

`calibri/cluster.py` has the evaluator that they are together.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..calibri.cluster import ClusterEvaluator
from ..calibri.configuration import RunConfig
from ..calibri.ensemble_space import EnsembleSpace
from ..calibri.evaluation import Batch, Floats, Sample
from ..calibri.settings import RunSettings
from ..calibri.worker_pool import Needs

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ..commands.engines import Cluster
    from ..rewards.protocol import Reward
    from .sampling import ComfyEvaluator


@dataclass(frozen=True)
class Folders:
    """Where a worker finds ComfyUI and its folders: as the driver, on the worker's own disk."""

    comfyui: Path
    base: Path | None
    user: Path | None
    output: Path | None

    def start(self, cpu: bool | None) -> None:
        """Start ComfyUI in this process."""
        from .headless import start_comfyui

        start_comfyui(self.comfyui, cpu, self.base, self.user, self.output)


@dataclass(frozen=True)
class Told:
    """What a worker says of what it draws with; all but `config` tells it from another."""

    config: RunConfig
    space: EnsembleSpace
    record: dict[str, Any]
    base_model: str
    fingerprint: str


@dataclass(frozen=True)
class ComfyFactory:
    """Makes a worker's evaluator. `rewards` are actors that score in its place; may be none."""

    settings: RunSettings
    folders: Folders
    cpu: bool | None
    images_at_once: int | None
    rewards: tuple[Any, ...] = ()

    def __call__(self) -> tuple[InferenceEvaluator, Told]:
        self.folders.start(self.cpu)
        from .headless import reward_named
        from .headless_run import prepare_settings

        def distant(name: str) -> Any:
            return DistantReward(reward_named(name), name, self.rewards)

        prepared = prepare_settings(
            self.settings,
            distant if self.rewards else reward_named,
            images_at_once=self.images_at_once,
        )
        told = Told(
            prepared.config,
            prepared.space,
            prepared.settings,
            prepared.base_model,
            prepared.fingerprint,
        )
        return InferenceEvaluator(prepared.evaluator), told


class InferenceEvaluator:
    """A `ComfyEvaluator` outside of a node, which ComfyUI would run without gradients."""

    def __init__(self, evaluator: ComfyEvaluator) -> None:
        self._evaluator = evaluator

    def plan(self, candidates: int, bucket: Sequence[Sample]) -> list[Batch]:
        return self._without_gradients(lambda: self._evaluator.plan(candidates, bucket))

    def run(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample]) -> Floats:
        return self._without_gradients(lambda: self._evaluator.run(batch, vectors, bucket))

    def judge(self, batch: Batch, vectors: Floats, bucket: Sequence[Sample], judge: str) -> Floats:
        return self._without_gradients(lambda: self._evaluator.judge(batch, vectors, bucket, judge))

    def images(self, vectors: Floats, bucket: Sequence[Sample]) -> np.ndarray:
        return self._without_gradients(lambda: self._evaluator.images(vectors, bucket))

    def _without_gradients(self, make: Callable[[], Any]) -> Any:
        import torch

        with torch.inference_mode():
            return make()


class RewardWorker:
    """Scores in a process of its own, on a device of its own."""

    def __init__(self, folders: Folders, cpu: bool | None) -> None:
        folders.start(cpu)
        self._rewards: dict[str, Reward] = {}

    def score(
        self, name: str, packed: np.ndarray, order: list[int], prompts: list[str]
    ) -> np.ndarray:
        """Scores [B] of images [B, H, W, 3], which came with their axes in this order."""
        import torch

        from .headless import reward_named

        reward = self._rewards.setdefault(name, reward_named(name))
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
        scores = ray.get(worker.score.remote(self._called, packed, order, list(prompts)))
        return torch.from_numpy(scores.copy())


class ComfyCluster(ClusterEvaluator):
    """The workers' evaluator as a run's end wants it (`calibration_result.py`)."""

    preview = None

    @property
    def prompts(self) -> tuple[str, ...]:
        return self.told.config.all_prompts


@dataclass(frozen=True)
class ClusterPrepared:
    """As `calibration_inputs.Prepared`, without a model in this process."""

    told: Told
    evaluator: ComfyCluster

    @property
    def config(self) -> RunConfig:
        return self.told.config

    @property
    def space(self) -> EnsembleSpace:
        return self.told.space

    @property
    def settings(self) -> dict[str, Any]:
        return self.told.record

    @property
    def base_model(self) -> str:
        return self.told.base_model

    @property
    def fingerprint(self) -> str:
        return self.told.fingerprint


def connect(
    settings: RunSettings,
    comfyui: Path,
    cpu: bool | None,
    images_at_once: int | None,
    cluster: Cluster,
    say: Callable[[str], None],
) -> ClusterPrepared:
    """A calibration on a cluster's workers, once the first of them has its model.

    Raises ValueError for settings that no cluster has, WorkerError where no worker can be started.
    """
    from ..calibri import ray_connection
    from .headless_run import check_settings

    check_settings(settings)
    if settings.model.preview_vae:
        raise ValueError(
            "A preview VAE is measured by one process, and a cluster has many: leave out "
            "--preview-vae, or take --engine local."
        )
    few = cluster.workers or 1
    cpus = few * cluster.cpus_per_worker + cluster.reward_workers
    ray = ray_connection.connect(cluster.address, cpus)
    gpus = cluster.gpus_per_worker
    if gpus is None:
        gpus = 0.0 if cpu or not ray.cluster_resources().get("GPU") else 1.0
    folders = _folders(comfyui)
    rewards = ()
    if cluster.reward_workers:
        actor = ray.remote(RewardWorker).options(
            num_gpus=gpus, num_cpus=1, max_restarts=-1, max_task_retries=2
        )
        rewards = tuple(actor.remote(folders, cpu) for _ in range(cluster.reward_workers))
    evaluator = ComfyCluster(
        ComfyFactory(settings, folders, cpu, images_at_once, rewards),
        Needs(gpus, cluster.cpus_per_worker, cluster.worker_timeout),
        cluster.workers,
        say,
        lambda one, other: one.record == other.record,
    )
    return ClusterPrepared(evaluator.told, evaluator)


def _folders(comfyui: Path) -> Folders:
    """The folders of this process, as options for another."""
    import folder_paths
    from comfy.cli_args import args

    base = args.base_directory
    return Folders(
        comfyui,
        Path(base) if base else None,
        Path(folder_paths.get_user_directory()),
        Path(folder_paths.get_output_directory()),
    )
