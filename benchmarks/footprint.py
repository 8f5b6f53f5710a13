"""What a call needs besides time: memory at its peak, and values that Python waits for."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Reading a tensor's value: on a GPU, Python stops until it is computed. The last two are what
# inference mode shows of the first.
_READS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.item.default,
    torch.ops.aten.is_nonzero.default,
}


class _ReadValues(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.count += func in _READS
        return func(*args, **(kwargs or {}))


def values_read(call: Callable[[], object]) -> int:
    """How many tensors' values `call` reads. Seen on any device, a CPU included."""
    with _ReadValues() as reads:
        call()
    return reads.count


def synchronisations(call: Callable[[], object]) -> int:
    """How often `call` waits for the GPU in any way that PyTorch can see."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in seen)


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """The most memory that tensors made within `call` take at once."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True, acc_events=True) as profile:
        call()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    memory = [event for event in events if event.get("name") == "[memory]"]
    taken = peak = 0
    for event in sorted(memory, key=lambda event: event["ts"]):
        taken += event["args"]["Bytes"]  # negative where memory is given back
        peak = max(peak, taken)
    return peak
