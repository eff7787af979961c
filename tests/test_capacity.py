"""Room on the node: what is free, what of it no model can use, and what would still fit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.daemon import run
from support.gpus import Machine
from support.waiting import until

from palegreen.exporter.capacity import CapacitySource, fit, slots
from palegreen.exporter.config import ModelSize
from palegreen.exporter.nvml.usage import DeviceUse

GIB = 1 << 30


def devices(*free: int, total: int = 80) -> list[DeviceUse]:
    return [DeviceUse(f"GPU-{n}", str(n), "", total * GIB, each * GIB, ()) for n, each in enumerate(free)]


def size(memory: int, gpus: int = 1) -> ModelSize:
    return ModelSize.model_validate({"name": "m", "memory": memory * GIB, "gpus": gpus})


@pytest.mark.parametrize(
    ("free", "wanted", "replicas", "why"),
    [
        ([30, 30], size(20), 2, "fits"),
        ([45, 30], size(20), 3, "fits"),
        ([15, 15, 15], size(40), 0, "fragmented"),
        ([5, 5], size(40), 0, "full"),
        ([80, 80], size(90), 0, "too_large"),
        ([80, 80], size(40, gpus=4), 0, "too_few_gpus"),
        ([80, 10, 10, 10], size(20, gpus=2), 0, "fragmented"),
        ([80, 20, 20], size(20, gpus=2), 2, "fits"),
        ([80, 80, 80, 80], size(40, gpus=4), 2, "fits"),
    ],
)
def test_replicas_that_fit_are_counted_and_none_has_a_reason(
    free: list[int], wanted: ModelSize, replicas: int, why: str
) -> None:
    assert slots(wanted, devices(*free)) == replicas
    assert fit(wanted, devices(*free)) == why


@given(st.lists(st.integers(0, 80), min_size=1, max_size=8), st.integers(1, 40), st.integers(1, 4))
def test_as_many_replicas_fit_as_can_be_placed_one_by_one(free: list[int], memory: int, gpus: int) -> None:
    room = sorted((each // memory for each in free), reverse=True)
    placed = 0
    while len(room) >= gpus and room[gpus - 1] > 0:  # the roomiest first is the best order
        room = sorted([*(each - 1 for each in room[:gpus]), *room[gpus:]], reverse=True)
        placed += 1
    assert slots(size(memory, gpus), devices(*free)) == placed


def test_stranded_memory_and_room_are_published_of_all_gpus_that_answer(machine: Callable[..., Machine]) -> None:
    gpus = [{"memory_total": "80GiB", "memory_reserved": 0, "memory_used": f"{used}GiB"} for used in (60, 65, 70)]
    played = machine({"gpus": gpus})
    with played.daemon("--model-size", "large=30GiB", "--model-size", "small=15GiB") as daemon:
        until(lambda: daemon.value("palegreen_node_gpu_free_memory_bytes") == 45 * GIB)
        assert daemon.value("palegreen_node_gpu_largest_free_memory_bytes") == 20 * GIB
        assert daemon.value("palegreen_node_gpu_stranded_memory_bytes") == 25 * GIB
        assert daemon.value("palegreen_node_gpu_model_slots", model_size="large") == 0
        assert daemon.value("palegreen_node_gpu_model_fit", model_size="large", reason="fragmented") == 1
        assert daemon.value("palegreen_node_gpu_model_slots", model_size="small") == 2
        played.play({"gpus": [{**gpus[0], "lost": True}, *gpus[1:]]})
        until(lambda: daemon.value("palegreen_node_gpu_free_memory_bytes") == 25 * GIB)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        (["a=20GiB", "a=30GiB"], "a is declared twice; allowed: each name once"),
        (["a=40x2"], "got 40; allowed: greater than or equal to 1048576"),
    ],
)
def test_model_sizes_that_cannot_be_meant_are_refused(sizes: list[str], said: str) -> None:
    done = run("node", "--once", "--no-nvml", *(argument for size in sizes for argument in ("--model-size", size)))
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_compute_instances_of_one_gpu_instance_share_its_memory() -> None:
    shared = [DeviceUse("GPU-0", "0", f"MIG-{n}", 40 * GIB, 20 * GIB, (), gpu_instance=1) for n in range(2)]
    collected = CapacitySource(lambda: shared, [size(15)]).collect()
    assert collected.lines["palegreen_node_gpu_free_memory_bytes"].endswith(f" {float(20 * GIB)!r}\n")
    assert collected.lines["palegreen_node_gpu_model_slots"].endswith(" 1.0\n")


def test_a_model_size_that_cannot_be_read_is_one_line_that_says_what_is_allowed() -> None:
    done = run("node", "--once", "--no-nvml", "--model-size", "llama")
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "palegreen: --model-size: got 'llama'; allowed: NAME=MEMORY or NAME=MEMORYxGPUS, such as llama-70b=40GiBx4"
    )
