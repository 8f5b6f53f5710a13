"""Where a calibration's images are drawn: in this process, or on the actors of a Ray cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..calibri.settings import RunSettings

if TYPE_CHECKING:
    from ..calibri.cluster import ClusterEvaluator
    from ..calibri.forecast import Forecast
    from ..calibri.preset_metadata import Preset

LOCAL, RAY = "local", "ray"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Cluster:
    """What the options say of a Ray cluster; None is for the default."""

    address: str | None = None
    workers: int | None = None
    gpus_per_worker: float | None = None
    cpus_per_worker: float = 1.0
    reward_workers: int = 0
    worker_timeout: float = 900.0
    mixed_workers: bool = False


class Engine(Protocol):
    """One way to draw."""

    def prepare(
        self, settings: RunSettings, comfyui: Path, say: Say, run_id: str | None = None
    ) -> tuple[Any, Preset | None]:
        """A calibration that can begin (`nodes/calibration_inputs.py`), models loaded, and the
        preset that it begins at. `run_id` is the run's that is to go on, if one is named.

        Raises ValueError with one sentence for what does not fit.
        """
        ...

    def forecast(
        self, prepared: Any, folder: Path | None, seconds: float | None, price: float
    ) -> Forecast:
        """What it will cost; `folder` is the run's, where there is one. `seconds` for an image are
        measured where they are not given."""
        ...

    def close(self) -> None:
        """Let everything go."""
        ...


class LocalEngine:
    """This process, as a node does it."""

    workers = 1

    def __init__(self, cpu: bool | None, images_at_once: int | None, _: Cluster) -> None:
        self._cpu, self._images_at_once = cpu, images_at_once

    def prepare(
        self, settings: RunSettings, comfyui: Path, say: Say, run_id: str | None = None
    ) -> tuple[Any, Preset | None]:
        from ..nodes.headless import import_comfyui

        say("Loading the model")
        import_comfyui(comfyui, self._cpu)
        from ..nodes.headless_run import prepare_settings, start_preset

        start = start_preset(settings)
        return prepare_settings(settings, None, self._images_at_once, start), start

    def forecast(
        self, prepared: Any, folder: Path | None, seconds: float | None, price: float
    ) -> Forecast:
        return forecast(prepared, folder, seconds, price, 1, 1.0)

    def close(self) -> None:
        pass


class RayEngine:
    """Actors of a Ray cluster; this process draws nothing."""

    def __init__(self, cpu: bool | None, images_at_once: int | None, cluster: Cluster) -> None:
        self._cpu, self._images_at_once, self._cluster = cpu, images_at_once, cluster
        self._connected = False
        self._evaluator: ClusterEvaluator | None = None

    def prepare(
        self, settings: RunSettings, comfyui: Path, say: Say, run_id: str | None = None
    ) -> tuple[Any, Preset | None]:
        from ..calibri import ray_connection

        ray_connection.check_installed()
        from ..nodes.headless import import_comfyui

        # It draws nothing, and the GPU is its workers'.
        import_comfyui(comfyui, cpu=True)
        from ..nodes.cluster import check_settings, start_cluster
        from ..nodes.headless_run import start_preset, whole_paths

        check_settings(settings)
        # A worker's own folder is another.
        settings = replace(settings, model=whole_paths(settings.model))
        start, wanted = start_preset(settings), self._cluster
        say("Connecting to Ray")
        self._connected = True
        ray_connection.connect(
            wanted.address, (wanted.workers or 1) * wanted.cpus_per_worker + wanted.reward_workers
        )
        say("Loading the model in the first worker")
        prepared = start_cluster(
            settings, start, comfyui, self._cpu, self._images_at_once, wanted, say, run_id
        )
        self._evaluator = prepared.evaluator
        return prepared, start

    def forecast(
        self, prepared: Any, folder: Path | None, seconds: float | None, price: float
    ) -> Forecast:
        from ..calibri.evaluation import training_bucket
        from ..calibri.forecast import queue_efficiency

        config = prepared.config
        workers = prepared.evaluator.wanted
        bucket = training_bucket(config.seed, 1, len(config.prompts), config.bucket_size or 16)
        batches = len(prepared.evaluator.plan(16, bucket))
        efficiency = queue_efficiency(batches, workers)
        return forecast(prepared, folder, seconds, price, workers, efficiency)

    def close(self) -> None:
        from ..calibri import ray_connection

        if self._evaluator is not None:
            self._evaluator.close()
        if self._connected:
            ray_connection.disconnect()


ENGINES: dict[str, Callable[[bool | None, int | None, Cluster], Engine]] = {
    LOCAL: LocalEngine,
    RAY: RayEngine,
}


def forecast(
    prepared: Any,
    folder: Path | None,
    seconds: float | None,
    price: float,
    workers: int,
    efficiency: float,
) -> Forecast:
    """What a run will cost, at the pace that its journal, or else one batch, has."""
    from ..calibri.forecast import Forecast, expected_images, measured_seconds
    from ..calibri.journal import Journal
    from ..nodes.runs import JOURNAL

    config, space = prepared.config, prepared.space
    if folder is not None and (folder / JOURNAL).is_file():
        with Journal.read(folder / JOURNAL) as journal:
            images, drawn = expected_images(config, space, journal)
            if seconds is None and workers == 1:
                seconds = measured_seconds(journal)
    else:
        images, drawn = expected_images(config, space, None)
    if seconds is None:
        seconds = _pilot_seconds(prepared)
    sampling = config.sampling
    guided = space.guidance is not None or sampling["cfg"] != 1.0
    calls = sampling["steps"] * space.members
    if guided and space.guidance is None:
        calls *= 2
    return Forecast(images, drawn, calls, seconds, workers, efficiency, price)


def _pilot_seconds(prepared: Any) -> float:
    """Seconds for an image of one batch of the search, drawn twice: at first models are loaded."""
    import numpy as np
    import torch

    from ..calibri.evaluation import training_bucket

    config, evaluator = prepared.config, prepared.evaluator
    bucket = training_bucket(config.seed, 1, len(config.prompts), config.bucket_size or 16)
    vectors = np.repeat(prepared.space.identity[None], 16, axis=0)
    batch = evaluator.plan(16, bucket)[0]
    with torch.inference_mode():
        for _ in range(2):
            began = time.monotonic()
            evaluator.run(batch, vectors, bucket)
            took = time.monotonic() - began
    return took / len(batch)
