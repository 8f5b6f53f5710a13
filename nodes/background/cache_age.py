"""Keeps ComfyUI's cache from ageing by thousands of slices.

In its default mode v0.33.0 weighs a cached result by 1.3 to the power of the prompts since its last
use. Beyond 2,700 prompts that is more than a float holds, and the error would end the thread that
runs all prompts. No person queues so many; a calibration of weeks does.
"""

from __future__ import annotations

import sys
from typing import Any

OLDEST = 1000  # prompts


def keep_young() -> None:
    """Let no cached result be older than OLDEST prompts; while a prompt runs.

    Nothing in modes and versions whose cache does not age.
    """
    memory: Any = sys.modules.get("comfy.memory_management")
    cache = getattr(getattr(memory, "extra_ram_release_callback", None), "__self__", None)
    used = getattr(cache, "used_generation", None)
    if cache is None or not isinstance(used, dict):
        return
    least = cache.generation - OLDEST
    for key, generation in used.items():
        if generation < least:
            used[key] = least
