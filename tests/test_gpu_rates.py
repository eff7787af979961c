"""Exact rates: what happens between two scrapes is in the counters, whatever the interval."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pynvml as nvml
import pytest
from support.gpus import Machine
from support.waiting import until

from palegreen.exporter.nvml.integral import Integral, TrailingMinute
from palegreen.exporter.nvml.processes import Busy
from palegreen.exporter.peak import Peak

STREAM = json.loads((Path(__file__).parent / "captures" / "gpu" / "utilization-stream.json").read_text())
SAMPLES = [(at, percent / 100) for at, percent in STREAM["samples"]]


def truth(begin: float, end: float) -> float:
    """Busy seconds of the stream in (begin, end]: each sample holds for the time since the one before."""
    steps = pairwise(SAMPLES)
    return sum(value * (at - before) for (before, _), (at, value) in steps if begin < at <= end)


def scraped(interval: float) -> list[tuple[float, float]]:
    """(moment, busy seconds) at each scrape of a daemon that drains the stream ten times a second."""
    integral, seen, drained, scrapes = Integral(), iter(SAMPLES), [], []
    at, value = next(seen)
    moment = SAMPLES[0][0]
    while moment <= SAMPLES[-1][0]:
        while at <= moment:
            integral.add(at, value)
            drained.append(at)
            following = next(seen, None)
            if following is None:
                break
            at, value = following
        scrapes.append((drained[-1], integral.total))
        moment += 0.1
    step = round(interval / 0.1)
    return scrapes[::step]


@pytest.mark.parametrize("interval", [1.0, 15.0, 60.0])
def test_the_integral_is_the_truth_at_every_scrape_interval(interval: float) -> None:
    scrapes = scraped(interval)
    assert len(scrapes) >= 3
    for (begin, before), (end, after) in pairwise(scrapes):
        assert after - before == pytest.approx(truth(begin, end), rel=0.01, abs=1e-6)


def test_a_hole_in_the_samples_counts_as_neither_busy_nor_idle() -> None:
    integral = Integral()
    for at in (0.0, 0.5, 1.0, 31.0, 31.5):
        integral.add(at, 1.0)
    assert integral.total == pytest.approx(1.5)
    assert integral.unseen == pytest.approx(30.0)


def test_a_clock_that_is_set_back_costs_what_lies_between_and_nothing_more() -> None:
    integral = Integral()
    for at in (1000.0, 1000.5, 400.0, 400.5, 401.0):
        integral.add(at, 1.0)
    assert integral.total == pytest.approx(1.5)


class Processes:
    """The driver's answers about processes, one after the other: (microseconds, pid, percent)."""

    def __init__(self) -> None:
        self.now = 0.0
        self.answer: list[tuple[int, int, int]] = []
        self.busy = Busy(None, lambda: self.now, self._utilization)

    def at(self, second: float, *answer: tuple[int, int, int]) -> float:
        self.now, self.answer = second, list(answer)
        self.busy.drain(None)
        return self.busy.seconds.get(7, 0.0)

    def _utilization(self, _handle: object, buffer: Any, count: Any, _seen: object) -> int:
        if not self.answer:
            return int(nvml.NVML_ERROR_NOT_FOUND)
        for place, (stamp, pid, percent) in zip(buffer, self.answer, strict=False):
            place.timeStamp, place.pid, place.smUtil = stamp, pid, percent
        count._obj.value = len(self.answer)
        return int(nvml.NVML_SUCCESS)


def test_a_process_that_idled_for_long_was_not_busy_while_it_did() -> None:
    """nvml.h: one structure for each process that ran since; after an idle hour the last one is an hour old."""
    driver = Processes()
    driver.at(0, (1_000_000, 7, 50))
    for second in range(1, 3600):
        driver.at(second)
    busy = driver.at(3600, (3_601_000_000, 7, 50))
    assert busy <= 1.0
    assert driver.at(3601, (3_602_000_000, 7, 50)) == pytest.approx(busy + 0.5)


def test_a_process_sample_over_100_percent_is_no_sample() -> None:
    driver = Processes()
    driver.at(0, (1_000_000, 7, 50))
    driver.at(0.5, (9_000_000_000, 7, 4_294_967))
    assert driver.at(1, (1_500_000, 7, 50)) == pytest.approx(0.25)


def test_samples_that_are_given_again_count_once() -> None:
    integral = Integral()
    for at in (0.0, 0.5, 0.5, 0.25, 1.0):
        integral.add(at, 1.0)
    assert integral.total == pytest.approx(1.0)


def test_extremes_forget_what_is_older_than_a_minute() -> None:
    minute = TrailingMinute()
    for tenth in range(900):
        minute.add(tenth / 10, 0.0 if tenth == 200 else 0.8)
    assert minute.extremes() == (0.8, 0.8)
    assert minute.period() == pytest.approx(0.1, rel=0.01)
    minute.add(90.0, 0.1)
    assert minute.extremes() == (0.1, 0.8)


def test_a_peak_is_remembered_for_ever_and_for_an_hour() -> None:
    peak = Peak()
    peak.see(0.0, 40)
    peak.see(1800.0, 2)
    assert (peak.ever, peak.last_hour) == (40, 40)
    peak.see(3700.0, 3)
    assert (peak.ever, peak.last_hour) == (40, 3)


def test_a_stall_of_300_ms_between_two_scrapes_is_visible(machine: Callable[..., Machine]) -> None:
    busy: dict[str, Any] = {"gpus": 1, "each": {"gpu_utilization": 90}}
    played = machine(busy)
    with played.daemon() as daemon:
        until(lambda: daemon.value("palegreen_gpu_utilization_max_ratio") == 0.9)
        assert daemon.value("palegreen_gpu_utilization_min_ratio") == 0.9
        played.play({"gpus": 1, "each": {"gpu_utilization": 0}})
        time.sleep(0.35)  # the stall itself: two samples of a sixth of a second
        played.play(busy)
        until(lambda: daemon.value("palegreen_gpu_utilization_min_ratio") == 0.0)
        assert daemon.value("palegreen_gpu_utilization_ratio") == 0.9


def test_busy_seconds_grow_with_the_load(machine: Callable[..., Machine]) -> None:
    with machine({"gpus": 1, "each": {"gpu_utilization": 40}}).daemon() as daemon:
        read = lambda: (daemon.value("palegreen_gpu_busy_seconds_total"), time.monotonic())  # noqa: E731
        until(lambda: (read()[0] or 0) > 0)
        first, began = read()
        until(lambda: (read()[0] or 0) > (first or 0) + 1.2)
        second, ended = read()
        assert first is not None
        assert second is not None
        # a scrape may lie up to a second and a sample period behind, at either end
        assert (second - first) == pytest.approx(0.4 * (ended - began), abs=0.4 * (1 + 1 / 6))


@pytest.mark.parametrize("refused", ["nvmlDeviceGetSamples"])
def test_without_samples_it_polls_and_says_so(refused: str, machine: Callable[..., Machine]) -> None:
    scenario = {"gpus": 1, "each": {"gpu_utilization": 50, "errors": {refused: "NOT_SUPPORTED"}}}
    with machine(scenario).daemon() as daemon:
        until(lambda: (daemon.value("palegreen_gpu_busy_seconds_total") or 0) > 0.5)
        basis = {s.labels["basis"]: s.value for s in daemon.samples() if s.name == "palegreen_gpu_sampling"}
        assert basis == {"samples": 0.0, "polling": 1.0}


def test_activity_of_sms_tensor_cores_and_memory_adds_up_without_dcgm(machine: Callable[..., Machine]) -> None:
    scenario = {"gpus": 1, "each": {"gpm_sm": 80, "gpm_occupancy": 40, "gpm_tensor": 20, "gpm_dram": 60}}
    names = [f"palegreen_gpu_{part}_seconds_total" for part in ("sm_active", "sm_occupancy", "tensor_active")]
    with machine(scenario).daemon() as daemon:
        until(lambda: (daemon.value("palegreen_gpu_dram_active_seconds_total") or 0) > 1)
        found = {sample.name: sample.value for sample in daemon.samples()}
    dram = found["palegreen_gpu_dram_active_seconds_total"]
    for name, share in zip(names, (80 / 60, 40 / 60, 20 / 60), strict=True):
        assert found[name] == pytest.approx(dram * share, rel=0.01)  # of one pair of samples


def test_a_mig_device_has_activity_of_its_own(machine: Callable[..., Machine]) -> None:
    mig = [{"profile": "3g.40gb", "gpm_sm": 80}, {"profile": "1g.10gb", "gpm_sm": 10}]
    with machine({"gpus": [{"mig": mig}]}).daemon() as daemon:

        def active() -> dict[str, float]:
            name = "palegreen_gpu_sm_active_seconds_total"
            return {s.labels["mig"]: s.value for s in daemon.samples() if s.name == name}

        until(lambda: len(active()) == 2 and max(active().values()) > 1.5)
        low, high = sorted(active().values())
        assert low / high == pytest.approx(10 / 80, rel=0.01)


def test_throttling_is_what_the_driver_counts_and_else_what_two_looks_saw(machine: Callable[..., Machine]) -> None:
    for errors in ({}, {f"field:{number}": "NOT_SUPPORTED" for number in (74, 76, 269, 270, 271)}):
        scenario = {"start": time.time() - 5000, "gpus": 1, "each": {"reason_hw_power_brake": 1, "errors": errors}}
        with machine(scenario).daemon() as daemon:

            def held() -> dict[str, float]:
                name = "palegreen_gpu_throttled_seconds_total"
                return {s.labels["reason"]: s.value for s in daemon.samples() if s.name == name}

            until(lambda: held().get("hw_power_brake", 0) > 1)
            assert held()["sw_thermal"] == 0
            # the driver has counted since the scenario began, two looks cannot have
            assert (held()["hw_power_brake"] > 1000) == (not errors)


def test_a_clock_that_is_stuck_low_under_load_is_counted(machine: Callable[..., Machine]) -> None:
    stuck = {"gpu_utilization": 95, "sm_clock": 345}
    explained = {"gpu_utilization": 95, "sm_clock": 345, "reason_sw_power_cap": 1}
    with machine(
        {"gpus": [stuck, explained, {"gpu_utilization": 95}, {"gpu_utilization": 3, "sm_clock": 345}]}
    ).daemon() as daemon:

        def low() -> dict[str, float]:
            name = "palegreen_gpu_clock_low_seconds_total"
            return {s.labels["gpu"]: s.value for s in daemon.samples() if s.name == name}

        until(lambda: low().get("0", 0) > 1.5)
        assert [low()[gpu] for gpu in ("1", "2", "3")] == [0, 0, 0]


def test_two_processes_on_one_gpu_have_busy_seconds_of_their_own(machine: Callable[..., Machine]) -> None:
    processes = [{"pid": 11, "gpu_utilization": 60}, {"pid": 12, "gpu_utilization": 20}, {"pid": 13}]
    with machine({"gpus": [{"processes": processes}]}).daemon() as daemon:

        def busy() -> dict[str, float]:
            name = "palegreen_gpu_process_busy_seconds_total"
            return {s.labels["pid"]: s.value for s in daemon.samples() if s.name == name}

        until(lambda: busy().get("11", 0) > 1)
        found = busy()
    assert found["12"] / found["11"] == pytest.approx(20 / 60, rel=0.01)
    assert found["13"] == 0
