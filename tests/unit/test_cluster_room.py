"""Room for workers on a cluster: how many it holds, and what is said where it holds too few."""

from __future__ import annotations

import pytest

from comfyui_calibri.calibri.cluster_room import Needs, capacity, no_room, room

GPUS = {"GPU": 2.0, "CPU": 16.0}
NONE = {"CPU": 4.0}
ONE_GPU = Needs(gpus=1.0)


def test_there_is_a_worker_for_each_gpu_or_for_each_machine_where_none_is_asked_for() -> None:
    assert room(ONE_GPU, [GPUS, GPUS, NONE]) == 4
    assert room(Needs(gpus=0.5), [GPUS]) == 4
    assert room(Needs(gpus=0.1), [{"GPU": 1.0, "CPU": 64.0}]) == 10
    assert room(Needs(gpus=1.0, cpus=12.0), [GPUS]) == 1  # its processor is the limit
    assert room(Needs(gpus=1.0, taken=1), [GPUS]) == 1
    assert room(Needs(), [GPUS, NONE]) == 2
    assert room(Needs(cpus=8.0), [GPUS, NONE]) == 1


@pytest.mark.parametrize(
    ("needs", "wanted", "waiting", "machines", "free", "words", "certain"),
    [
        (
            ONE_GPU,
            1,
            1,
            [NONE],
            {"CPU": 4.0},
            "The worker waits for a place: it takes 1 GPU and 1 CPU, and the cluster has 0 GPUs "
            "and 4 CPUs on 1 machine, 0 GPUs and 4 CPUs free; no machine has as much: ask for less "
            "with --gpus-per-worker or --cpus-per-worker, or add a machine that has.",
            True,
        ),
        (
            ONE_GPU,
            5,
            1,
            [GPUS, GPUS],
            {"CPU": 28.0},
            "1 of 5 workers waits for a place: each takes 1 GPU and 1 CPU, and the cluster has 4 "
            "GPUs and 32 CPUs on 2 machines, 0 GPUs and 28 CPUs free; ask for fewer with --workers "
            "or --reward-workers, or add machines.",
            True,
        ),
        (
            ONE_GPU,
            2,
            2,
            [GPUS],
            {"GPU": 0.5, "CPU": 9.5},
            "2 of 2 workers wait for a place: each takes 1 GPU and 1 CPU, and the cluster has 2 "
            "GPUs and 16 CPUs on 1 machine, 0.5 GPUs and 9.5 CPUs free; something else has taken "
            "it: end that, or add machines.",
            False,
        ),
    ],
)
def test_what_is_asked_for_what_there_is_and_the_mend_are_one_sentence(
    needs: Needs, wanted: int, waiting: int, machines: list, free: dict, words: str, certain: bool
) -> None:
    assert no_room(needs, wanted, waiting, machines, free) == words
    assert (wanted > capacity(needs, machines)) is certain


def test_places_that_rewards_take_are_named() -> None:
    needs = Needs(gpus=1.0, taken=1)
    assert capacity(needs, [GPUS]) == 1
    assert "(1 of its places is for rewards)" in no_room(needs, 2, 1, [GPUS], {})
