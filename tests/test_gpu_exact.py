"""What busy seconds are taken over: with it, a mean is exact at intervals as short as the samples themselves."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from support.daemon import Daemon
from support.gpus import Machine, library
from support.waiting import until

from palegreen.demo.driver.build import BuildError
from palegreen.exporter.nvml.integral import Integral


@pytest.fixture
def machine(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    steady = {"gpus": [{"gpu_utilization": 62, "sample_period": 0.25}]}
    try:
        return Machine(tmp_path, library(tmp_path_factory.getbasetemp().parent / "drivers"), steady)
    except BuildError as failure:
        pytest.skip(f"the driver cannot be simulated: {failure}")


def counted(daemon: Daemon) -> tuple[float, float]:
    """Busy and sampled seconds, (0, 0) before there are any."""
    values = {sample.name: sample.value for sample in daemon.samples()}
    return (
        values.get("palegreen_gpu_busy_seconds_total", 0.0),
        values.get("palegreen_gpu_sampled_seconds_total", 0.0),
    )


def test_busy_over_sampled_seconds_is_the_utilisation_between_any_two_scrapes(machine: Machine) -> None:
    with machine.daemon() as daemon:
        seen = [until(lambda: (now := counted(daemon))[1] > 0 and now)]
        for _ in range(3):
            seen.append(until(lambda: (now := counted(daemon))[1] > seen[-1][1] and now))
    for (busy, sampled), (more_busy, more_sampled) in itertools.pairwise(seen):
        assert (more_busy - busy) / (more_sampled - sampled) == pytest.approx(0.62, abs=1e-6)


def test_a_hole_between_samples_is_not_time_that_was_sampled() -> None:
    busy = Integral()
    for at in (100.0, 100.5, 101.0, 109.0, 109.5):
        busy.add(at, 1.0)
    assert (busy.total, busy.covered, busy.unseen) == (1.5, 1.5, 8.0)
