"""ComfyUI's cache outlives more prompts than a person queues; that of v0.3.64 does not age."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from comfyui_calibri.nodes.background.cache_age import keep_young


def test_thousands_of_slices_leave_comfyui_able_to_free_memory() -> None:
    import comfy.memory_management
    from comfy_execution.caching import CacheKeySetID, RAMPressureCache

    cache = RAMPressureCache(CacheKeySetID)
    cache.generation = 4000
    cache.cache["old"] = SimpleNamespace(ui=None, outputs=[])
    cache.used_generation["old"], cache.timestamps["old"] = 1, 0.0
    everything = 2**62  # bytes
    with pytest.raises(OverflowError):  # else this file has no reason to be
        cache.ram_release(everything)
    comfy.memory_management.set_ram_cache_release_state(cache.ram_release, 0)
    try:
        keep_young()
    finally:
        comfy.memory_management.set_ram_cache_release_state(None, 0)
    cache.ram_release(everything)
    assert cache.cache == {}


@pytest.mark.oldest
def test_a_cache_that_does_not_age_is_left_alone() -> None:
    keep_young()
