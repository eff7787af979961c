"""Unbinding a GPU from its driver while the daemon reads it, binding it again, and a driver that is stuck."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from support.daemon import Daemon
from support.gpus import Machine, library
from support.waiting import until

from palegreen.demo.driver.build import OLD_DRIVER, BuildError
from palegreen.exporter.nvml.unbind import bound, wait_until_unbound

A, B, C = ({"uuid": f"GPU-{n}", "pci_bus_id": f"00000000:{n:02X}:00.0", "gpu_utilization": 50} for n in (1, 2, 3))
UNBIND_A = {"gpu": 0, "type": "unbind"}
BIND = {"gpu": 0, "type": "bind"}
HUNG = {"hang": ["*"]}


@pytest.fixture
def machine(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Machine]:
    def make(scenario: dict[str, Any], without: frozenset[str] = frozenset()) -> Machine:
        drivers = tmp_path_factory.getbasetemp().parent / "drivers"
        try:
            return Machine(tmp_path, library(drivers, without), scenario)
        except BuildError as failure:
            pytest.skip(f"the driver cannot be simulated: {failure}")

    return make


def up(daemon: Daemon) -> dict[tuple[str, str], float]:
    """Whether a GPU is up, by UUID and index; fails when one is shown twice."""
    found = [s for s in daemon.samples() if s.name == "palegreen_gpu_up"]
    assert len({s.labels["uuid"] for s in found}) == len(found), found
    return {(s.labels["uuid"], s.labels["gpu"]): s.value for s in found}


def busy(daemon: Daemon, uuid: str) -> float:
    return daemon.value("palegreen_gpu_busy_seconds_total", uuid=uuid) or 0.0


def holds_the_driver_open(daemon: Daemon, simulated: Machine) -> bool:
    scenario = simulated.environment["PALEGREEN_SIMULATED_DRIVER"]
    held = []
    for descriptor in Path(f"/proc/{daemon.pid}/fd").iterdir():
        try:
            held.append(str(descriptor.readlink()))
        except FileNotFoundError:
            continue
    return any(target.startswith(scenario) for target in held)


def test_an_unbind_makes_the_daemon_let_go_and_the_other_gpus_go_on_under_their_uuids(
    machine: Callable[..., Machine],
) -> None:
    simulated = machine({"gpus": [A, B, C]})
    with simulated.daemon() as daemon:
        until(lambda: up(daemon) == {("GPU-1", "0"): 1, ("GPU-2", "1"): 1, ("GPU-3", "2"): 1}, 10)
        until(lambda: busy(daemon, "GPU-3") > 0.5, 10)
        assert holds_the_driver_open(daemon, simulated)
        before = busy(daemon, "GPU-3")
        simulated.play({"gpus": [A, B, C], "events": [UNBIND_A]})
        until(lambda: not holds_the_driver_open(daemon, simulated), 5)
        simulated.play({"gpus": [B, C]})
        until(lambda: set(up(daemon).values()) == {0}, 3)
        until(lambda: up(daemon) == {("GPU-1", "0"): 0, ("GPU-2", "0"): 1, ("GPU-3", "1"): 1}, 15)
        after = busy(daemon, "GPU-3")
        assert after >= before
        until(lambda: busy(daemon, "GPU-3") > after, 5)
        assert len(daemon.events("driver.released")) == 1
        assert "pci=0000:01:00.0" in daemon.events("driver.released")[0]
        losses = [s.value for s in daemon.samples() if s.name == "palegreen_gpu_losses_total"]
        assert losses == [0.0] * 6, "what is let go of is not lost"
        assert daemon.value("palegreen_source_up", source="nvml") == 1
        simulated.play({"gpus": [A, B, C], "events": [BIND]})
        until(lambda: up(daemon) == {("GPU-1", "0"): 1, ("GPU-2", "1"): 1, ("GPU-3", "2"): 1}, 15)
        assert busy(daemon, "GPU-3") >= after


def test_a_gpu_that_is_bound_again_without_a_word_is_found_by_the_count(machine: Callable[..., Machine]) -> None:
    simulated = machine({"gpus": [A, B]})
    with simulated.daemon() as daemon:
        until(lambda: list(up(daemon).values()) == [1] * 2, 10)
        simulated.play({"gpus": [A, B], "events": [{"gpu": 1, "type": "unbind"}]})
        until(lambda: not holds_the_driver_open(daemon, simulated), 5)
        simulated.play({"gpus": [A]})
        until(lambda: up(daemon) == {("GPU-1", "0"): 1, ("GPU-2", "1"): 0}, 15)
        simulated.play({"gpus": [A, B]})
        until(lambda: up(daemon) == {("GPU-1", "0"): 1, ("GPU-2", "1"): 1}, 15)


def test_xids_stay_with_their_gpu_when_indices_shift(machine: Callable[..., Machine]) -> None:
    simulated = machine({"gpus": [A, B]})
    xid = {"gpu": 1, "xid": 31}
    with simulated.daemon() as daemon:
        until(lambda: list(up(daemon).values()) == [1] * 2, 10)
        simulated.play({"gpus": [A, B], "events": [xid]})
        until(lambda: daemon.value("palegreen_gpu_xid_errors_total", uuid="GPU-2", gpu="1") == 1, 5)
        simulated.play({"gpus": [A, B], "events": [xid, UNBIND_A]})
        until(lambda: not holds_the_driver_open(daemon, simulated), 5)
        simulated.play({"gpus": [B]})
        until(lambda: up(daemon) == {("GPU-1", "0"): 0, ("GPU-2", "0"): 1}, 15)
        simulated.play({"gpus": [B], "events": [{"gpu": 0, "xid": 31}]})
        until(lambda: daemon.value("palegreen_gpu_xid_errors_total", uuid="GPU-2", gpu="0") == 2, 5)
        assert daemon.value("palegreen_gpu_xid_errors_total", uuid="GPU-2", gpu="1") is None


def test_another_gpu_that_hangs_does_not_keep_the_daemon_from_letting_go(machine: Callable[..., Machine]) -> None:
    simulated = machine({"gpus": [A, B, C]})
    with simulated.daemon() as daemon:
        until(lambda: list(up(daemon).values()) == [1] * 3, 10)
        simulated.play({"gpus": [A, B | HUNG, C]})
        until(lambda: up(daemon).get(("GPU-2", "1")) == 0, 15)
        simulated.play({"gpus": [A, B | HUNG, C], "events": [UNBIND_A]})
        until(lambda: not holds_the_driver_open(daemon, simulated), 8)
        simulated.play({"gpus": [B | HUNG, C]})
        until(lambda: up(daemon) == {("GPU-1", "0"): 0, ("GPU-2", "1"): 0, ("GPU-3", "1"): 1}, 15)
        simulated.play({"gpus": [B, C]})
        until(lambda: up(daemon) == {("GPU-1", "0"): 0, ("GPU-2", "0"): 1, ("GPU-3", "1"): 1}, 15)


def test_a_driver_without_system_events_is_read_as_ever(machine: Callable[..., Machine]) -> None:
    simulated = machine({"gpus": [A, B]}, frozenset(OLD_DRIVER))
    with simulated.daemon() as daemon:
        until(lambda: list(up(daemon).values()) == [1] * 2, 10)
        until(lambda: len(daemon.events("nvml.no_system_events")) == 1, 5)
        simulated.play({"gpus": [A, B], "events": [UNBIND_A, {"gpu": 1, "xid": 13}]})
        until(lambda: daemon.value("palegreen_gpu_xid_errors_total", uuid="GPU-2") == 1, 5)
        assert set(up(daemon).values()) == {1}
        assert not daemon.events("driver.released")


def test_the_wait_for_an_unbind_ends_when_the_driver_has_one_gpu_less(tmp_path: Path) -> None:
    gpus = [tmp_path / f"0000:{n:02x}:00.0" for n in (1, 2)]
    for gpu in gpus:
        gpu.mkdir()
    (tmp_path / "uevent").touch()
    assert bound(tmp_path) == 2
    gpus[0].rmdir()
    wait_until_unbound(tmp_path, 2, 3600, Event())
    assert bound(tmp_path / "absent") is None


def test_a_count_that_does_not_return_is_a_stuck_driver_until_it_does(machine: Callable[..., Machine]) -> None:
    simulated = machine({"gpus": [A, B]})
    with simulated.daemon() as daemon:
        until(lambda: list(up(daemon).values()) == [1] * 2, 10)
        assert daemon.value("palegreen_driver_stuck") == 0
        simulated.play({"gpus": [A | {"gpu_utilization": 10}, B], "hang": ["nvmlDeviceGetCount_v2"]})
        until(lambda: daemon.value("palegreen_driver_stuck") == 1, 15)
        assert set(up(daemon).values()) == {1}, "GPUs that answer are read all the same"
        simulated.play({"gpus": [A | {"gpu_utilization": 20}, B], "hang": ["nvmlDeviceGetCount_v2"]})
        until(lambda: daemon.value("palegreen_gpu_utilization_ratio", uuid="GPU-1") == 0.2, 5)
        simulated.play({"gpus": [A, B]})
        until(lambda: daemon.value("palegreen_driver_stuck") == 0, 10)
