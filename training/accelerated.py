"""The processes that `accelerate launch` or `torchrun` started, by way of accelerate."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta

import torch
from torch import Tensor

from .processes import ALONE, Processes
from .state import TrainingError

BFLOAT16, FLOAT32 = "bfloat16", "float32"
_PRECISIONS = {"no": FLOAT32, "bf16": BFLOAT16}
_PLAIN = ("NO", "MULTI_GPU", "MULTI_CPU", "MULTI_XPU", "MULTI_NPU", "MULTI_MLU", "MULTI_HPU")
_PATIENCE = timedelta(days=2)
"""How long processes wait for the first one, which may be encoding a large folder."""


class Accelerated:
    """This process among those that were launched."""

    def __init__(self, cpu: bool) -> None:
        """Join them. Raises TrainingError for a way of sharing work that is not data parallel."""
        from accelerate import Accelerator
        from accelerate.utils import InitProcessGroupKwargs

        self._accelerator = Accelerator(
            cpu=cpu, kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)]
        )
        kind = self._accelerator.distributed_type.value
        if kind not in _PLAIN:
            raise TrainingError(
                f"accelerate is set to {kind}, and train has every process hold the whole model: "
                "choose multi-GPU or none in accelerate config, or launch with --multi_gpu."
            )
        self.index: int = self._accelerator.process_index
        self.count: int = self._accelerator.num_processes
        # A state read for "cpu:0", as accelerate says, is refused by PyTorch.
        found = self._accelerator.device
        self.device = torch.device("cpu") if found.type == "cpu" else found
        self.mixed_precision = str(self._accelerator.mixed_precision)

    @property
    def main(self) -> bool:
        """Whether it is the first of all machines."""
        return self.index == 0

    def mean(self, value: Tensor) -> Tensor:
        """By an all-reduce, whose result has the same bits everywhere."""
        out: Tensor = self._accelerator.reduce(value, reduction="mean")
        return out

    def first(self, work: Callable[[], None]) -> None:
        """The others wait; where it fails, the launcher ends them."""
        if self.main:
            work()
        self._accelerator.wait_for_everyone()

    def close(self) -> None:
        """Leave the others, when all are done."""
        self._accelerator.end_training()


def join(cpu: bool, precision: str | None) -> tuple[Processes, torch.device, str]:
    """The processes this one belongs to, its device, and `precision` or else the launcher's.

    Raises TrainingError where accelerate is needed and missing, or is set to what is not supported.
    """
    launched = any(name.startswith("ACCELERATE_") for name in os.environ)
    if not launched and int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return ALONE, _own_device(cpu), precision or FLOAT32
    try:
        found = Accelerated(cpu)
    except ImportError as error:
        raise TrainingError(
            f"accelerate cannot be imported ({error}): pip install 'comfyui-calibri[train]'."
        ) from error
    if precision is None:
        if found.mixed_precision not in _PRECISIONS:
            raise TrainingError(
                f"accelerate's mixed precision is {found.mixed_precision}: launch with "
                "--mixed_precision bf16 or no, or give --precision."
            )
        precision = _PRECISIONS[found.mixed_precision]
    return found, found.device, precision


def _own_device(cpu: bool) -> torch.device:
    if cpu:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
