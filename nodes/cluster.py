"""A calibration on the workers of a Ray cluster, as its driver sees it: no model is loaded here.

`cluster_worker.py` is what they run, `calibri/cluster.py` the evaluator that they are together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..calibri.cluster import ClusterEvaluator
from ..calibri.cluster_room import Needs
from ..calibri.configuration import RunConfig
from ..calibri.ensemble_space import EnsembleSpace
from ..calibri.journal import Journal
from ..calibri.likeness import COMFYUI, DEVICE, TORCH, Likeness, Surroundings, last_versions
from ..calibri.settings import RunSettings
from . import headless_run, runs
from .cluster_worker import ComfyFactory, Folders, Told
from .distant_rewards import RewardWorker

if TYPE_CHECKING:
    from ..calibri.preset_metadata import Preset
    from ..commands.engines import Cluster


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
    def versions(self) -> dict[str, str]:
        """What draws, for the journal."""
        known = self.told.surroundings
        return {
            COMFYUI: known[COMFYUI],
            TORCH: known[TORCH].partition("+")[0],
            DEVICE: known[DEVICE],
        }

    @property
    def settings(self) -> dict[str, Any]:
        return self.told.record

    @property
    def base_model(self) -> str:
        return self.told.base_model

    @property
    def fingerprint(self) -> str:
        return self.told.fingerprint


def start_cluster(
    settings: RunSettings,
    start: Preset | None,
    comfyui: Path,
    cpu: bool | None,
    images_at_once: int | None,
    cluster: Cluster,
    say: Callable[[str], None],
    run_id: str | None = None,
) -> ClusterPrepared:
    """A calibration on the workers of the cluster that Ray is connected to, once the first of them
    has its model.

    `start` is the preset it begins at; `run_id` the run's that is to go on, if one is named. Raises
    WorkerError where no worker can be started.
    """
    import ray

    from .surroundings import versions

    gpus = cluster.gpus_per_worker
    if gpus is None:
        gpus = 0.0 if cpu or not ray.cluster_resources().get("GPU") else 1.0
    # A driver without a GPU may have another build of PyTorch.
    ours = {name: value.partition("+")[0] for name, value in versions().items()}
    folders, expected = _folders(comfyui), {} if cluster.mixed_workers else ours
    rewards = ()
    if cluster.reward_workers:
        actor = ray.remote(RewardWorker).options(
            num_gpus=gpus, num_cpus=1, max_restarts=-1, max_task_retries=2
        )
        rewards = tuple(actor.remote(folders, cpu, expected) for _ in range(cluster.reward_workers))
    evaluator = ComfyCluster(
        ComfyFactory(settings, start, folders, cpu, images_at_once, expected, rewards),
        Needs(
            gpus,
            cluster.cpus_per_worker,
            cluster.worker_timeout,
            taken=cluster.reward_workers,
        ),
        cluster.workers,
        say,
        Likeness(
            lambda told: _so_far(settings.name, told.record, run_id), cluster.mixed_workers, say
        ),
    )
    return ClusterPrepared(evaluator.told, evaluator)


def check_settings(settings: RunSettings) -> None:
    """ValueError for settings that no calibration, or none on a cluster, can be made of."""
    headless_run.check_settings(settings)
    if settings.model.preview_vae:
        raise ValueError(
            "A preview VAE is measured by one process, and a cluster has many: leave out "
            "--preview-vae, or take --engine local."
        )


def _so_far(name: str, record: Mapping[str, Any], run_id: str | None) -> Surroundings:
    """What the run of this record was last drawn with; nothing if it is new."""
    folder = headless_run.known_run(name, record, run_id)
    if folder is None or not (folder / runs.JOURNAL).is_file():
        return {}
    with Journal.read(folder / runs.JOURNAL) as journal:
        return last_versions(journal)


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
