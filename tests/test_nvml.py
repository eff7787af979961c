"""GPUs through the real NVML binding and the simulated driver: what is shown, and what a broken GPU costs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.daemon import Daemon, run
from support.gpus import Machine
from support.waiting import until

from palegreen.demo.driver.build import OLD_DRIVER

GIB = 1 << 30
START = 1_700_000_000.0


def gpus(daemon: Daemon, name: str) -> dict[str, float]:
    """Value by GPU index of a metric that has one series a GPU."""
    return {s.labels["gpu"]: s.value for s in daemon.samples() if s.name == name and not s.labels["mig"]}


def comparable(text: str) -> str:
    """An exposition without what differs from run to run."""
    kept = [line for line in text.splitlines(keepends=True) if "palegreen_gpu_" in line or "palegreen_driver_" in line]
    return re.sub(
        r"^(palegreen_gpu_(?:energy|pcie_[rt]x|nvlink_[rt]x)_\w+_total\{.*\}) .*$", r"\1 *", "".join(kept), flags=re.M
    )


WHOLE = {
    "gpus": [
        {
            "nvlinks": 2, "memory_used": "70GiB", "gpu_utilization": 45, "memory_utilization": 12, "power": 512.5,
            "temperature": 64, "temperature_memory": 81, "ecc_dram_corrected_aggregate": 7,
            "ecc_sram_uncorrected_aggregate": 1, "remapped_rows_correctable": 2, "remapped_rows_pending": 1,
            "processes": [
                {"pid": 4001, "memory_used": "40GiB"},
                {"pid": 4002, "memory_used": "30GiB"},
                {"pid": 4003, "memory_used": None, "type": "graphics"},
            ],
        },
        {"nvlinks": 0},
    ]
}  # fmt: skip
MIG = {
    "gpus": [
        {
            "nvlinks": 0,
            "mig": [{"profile": "3g.40gb", "memory_used": "22GiB"}, {"profile": "1g.10gb", "memory_used": "3GiB"}],
            "processes": [{"pid": 5101, "gpu_instance": 1, "compute_instance": 0, "memory_used": "22GiB"}],
        }
    ]
}


@pytest.mark.parametrize(
    ("name", "scenario", "without"),
    [
        ("whole", WHOLE, frozenset()),
        ("mig", MIG, frozenset()),
        ("old-driver", WHOLE, frozenset(OLD_DRIVER)),
        (
            "little-supported",
            {
                "gpus": 1,
                "each": {"nvlinks": 0},
                "errors": dict.fromkeys(
                    ["nvmlDeviceGetPowerUsage", "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetRemappedRows",
                     "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetMigMode", "nvmlDeviceGetMemoryErrorCounter",
                     "nvmlDeviceGetBAR1MemoryInfo", "field:82"],
                    "NOT_SUPPORTED",
                ),
            },
            frozenset(),
        ),
    ],
)  # fmt: skip
def test_a_machine_is_shown_as_in_its_golden(
    name: str,
    scenario: dict[str, Any],
    without: frozenset[str],
    machine: Callable[..., Machine],
    golden: Callable[[str, str], None],
) -> None:
    text = machine(scenario, without).once("--no-attribution")  # whose pids are whose is this machine's affair
    golden(f"nvml/{name}.txt", comparable(text))


def test_memory_tells_reserved_from_used_and_falls_back_where_the_driver_cannot(
    machine: Callable[..., Machine],
) -> None:
    scenario = {"gpus": [{"memory_total": "80GiB", "memory_used": "60GiB", "memory_reserved": "1GiB"}]}
    new, old = machine(scenario).once(), machine(scenario, frozenset(OLD_DRIVER)).once()
    assert "palegreen_gpu_memory_reserved_bytes" in new
    assert "palegreen_gpu_memory_reserved_bytes" not in old
    assert f"}} {float(60 * GIB)}\n" in new.split("# TYPE palegreen_gpu_memory_used_bytes")[1].split("#")[0]
    assert f"}} {float(61 * GIB)}\n" in old.split("# TYPE palegreen_gpu_memory_used_bytes")[1].split("#")[0]


def test_eight_gpus_are_shown_each_with_its_own_uuid(machine: Callable[..., Machine]) -> None:
    with machine({"gpus": 8}).daemon() as daemon:
        up = until(lambda: (found := gpus(daemon, "palegreen_gpu_up")) and len(found) == 8 and found, 10)
        assert up == {str(index): 1.0 for index in range(8)}
        uuids = {s.labels["uuid"] for s in daemon.samples() if s.name == "palegreen_gpu_info"}
        assert len(uuids) == 8
        assert {s.labels["simulated"] for s in daemon.samples() if s.name == "palegreen_gpu_info"} == {"true"}


def test_energy_agrees_with_the_power_drawn(machine: Callable[..., Machine]) -> None:
    with machine({"gpus": [{"power": 400}], "start": time.time()}).daemon() as daemon:
        until(lambda: gpus(daemon, "palegreen_gpu_energy_joules_total"), 10)
        before, began = gpus(daemon, "palegreen_gpu_energy_joules_total")["0"], time.monotonic()
        time.sleep(4)
        after, ended = gpus(daemon, "palegreen_gpu_energy_joules_total")["0"], time.monotonic()
        # two readings, each up to a reading and a rendering (1.5 s) old
        assert abs((after - before) / 400 - (ended - began)) <= 1.6


def test_a_hung_call_on_one_of_eight_gpus_costs_that_gpu_and_nothing_else(machine: Callable[..., Machine]) -> None:
    simulated = machine({"gpus": 8})
    with simulated.daemon() as daemon:
        until(lambda: sum(gpus(daemon, "palegreen_gpu_up").values()) == 8, 10)
        simulated.play({"gpus": [{"gpu_utilization": 10, **({"hang": ["*"]} if i == 3 else {})} for i in range(8)]})
        until(lambda: gpus(daemon, "palegreen_gpu_up").get("3") == 0, 15)
        assert sum(gpus(daemon, "palegreen_gpu_up").values()) == 7
        used = gpus(daemon, "palegreen_gpu_memory_used_bytes")
        assert set(used) == {str(i) for i in range(8)} - {"3"}
        assert set(gpus(daemon, "palegreen_gpu_utilization_ratio").values()) == {0.1}, "the others stay fresh"
        simulated.play({"gpus": [{"gpu_utilization": 20, **({"hang": ["*"]} if i == 3 else {})} for i in range(8)]})
        until(lambda: set(gpus(daemon, "palegreen_gpu_utilization_ratio").values()) == {0.2}, 5)
        assert daemon.value("palegreen_source_up", source="nvml") == 1
        assert len(daemon.events("gpu.hung")) == 1
        simulated.play({"gpus": 8})
        until(lambda: gpus(daemon, "palegreen_gpu_up").get("3") == 1, 10)
        until(lambda: "3" in gpus(daemon, "palegreen_gpu_memory_used_bytes"), 5)


def test_scrapes_do_not_wait_for_a_hung_driver(machine: Callable[..., Machine]) -> None:
    simulated = machine({"gpus": 8})
    with simulated.daemon() as daemon:
        until(lambda: sum(gpus(daemon, "palegreen_gpu_up").values()) == 8, 10)
        simulated.play({"gpus": 8, "hang": ["*"]})
        until(lambda: sum(gpus(daemon, "palegreen_gpu_up").values()) == 0, 15)
        status, _, body = daemon.get()
        assert status == 200
        assert b"palegreen_gpu_memory_used_bytes{" not in body
        assert daemon.value("palegreen_source_up", source="nvml") == 1


def test_a_gpu_that_hangs_from_the_start_holds_up_no_other(machine: Callable[..., Machine]) -> None:
    with machine({"gpus": [{}, {"hang": ["*"]}, {}]}).daemon() as daemon:
        until(lambda: gpus(daemon, "palegreen_gpu_up") == {"0": 1, "1": 0, "2": 1}, 15)


def test_a_gpu_that_falls_off_the_bus_goes_absent_and_comes_back(machine: Callable[..., Machine]) -> None:
    simulated = machine({"gpus": 2})
    with simulated.daemon() as daemon:
        until(lambda: sum(gpus(daemon, "palegreen_gpu_up").values()) == 2, 10)
        uuid = next(
            s.labels["uuid"] for s in daemon.samples() if s.name == "palegreen_gpu_up" and s.labels["gpu"] == "1"
        )
        simulated.play({"gpus": [{}, {"lost": True}], "events": [{"gpu": 1, "type": "xid", "data": 79}]})
        until(lambda: gpus(daemon, "palegreen_gpu_up").get("1") == 0, 10)
        assert set(gpus(daemon, "palegreen_gpu_memory_used_bytes")) == {"0"}
        down = next(s for s in daemon.samples() if s.name == "palegreen_gpu_up" and s.labels["gpu"] == "1")
        assert down.labels["uuid"] == uuid, "it is still known by name"
        until(lambda: daemon.value("palegreen_gpu_xid_errors_total", gpu="1", xid="79") == 1, 5)
        simulated.play({"gpus": 2, "events": [{"gpu": 1, "type": "xid", "data": 79}]})
        until(lambda: gpus(daemon, "palegreen_gpu_up").get("1") == 1, 10)
        assert daemon.value("palegreen_gpu_xid_errors_total", gpu="1", xid="79") == 1


def test_xids_that_repeat_are_counted_each_time(machine: Callable[..., Machine]) -> None:
    simulated = machine({"gpus": 2})
    with simulated.daemon() as daemon:
        until(lambda: sum(gpus(daemon, "palegreen_gpu_up").values()) == 2, 10)
        events = [{"gpu": 0, "type": "xid", "data": 31}] * 3 + [{"gpu": 0, "type": "xid", "data": 63}]
        simulated.play({"gpus": 2, "events": events})
        until(lambda: daemon.value("palegreen_gpu_xid_errors_total", gpu="0", xid="31") == 3, 10)
        until(lambda: daemon.value("palegreen_gpu_xid_errors_total", gpu="0", xid="63") == 1, 5)
        simulated.play({"gpus": 2, "events": [*events, {"gpu": 0, "type": "xid", "data": 31}]})
        until(lambda: daemon.value("palegreen_gpu_xid_errors_total", gpu="0", xid="31") == 4, 10)
        latest = daemon.value("palegreen_gpu_xid_last_timestamp_seconds", gpu="0", xid="31")
        assert latest is not None
        assert abs(latest - time.time()) < 60
        assert daemon.value("palegreen_gpu_xid_errors_total", gpu="1", xid="31") is None


def test_throttling_counts_the_seconds_in_which_the_reason_holds(machine: Callable[..., Machine]) -> None:
    with machine({"gpus": [{"reason_sw_power_cap": 1, "reason_gpu_idle": 1}]}).daemon() as daemon:

        def seconds(reason: str) -> float:
            return daemon.value("palegreen_gpu_throttled_seconds_total", reason=reason) or 0.0

        until(lambda: seconds("sw_power_cap") > 0, 10)
        before, began = seconds("sw_power_cap"), time.monotonic()
        time.sleep(4)
        assert abs(seconds("sw_power_cap") - before - (time.monotonic() - began)) <= 1.6
        assert seconds("hw_thermal") == 0
        assert daemon.value("palegreen_gpu_throttled_seconds_total", reason="gpu_idle") is None, "idle is no throttle"


def test_a_driver_and_library_mismatch_is_a_metric_and_recovers_without_a_restart(
    machine: Callable[..., Machine],
) -> None:
    simulated = machine({"gpus": 1, "init": "LIB_RM_VERSION_MISMATCH"})
    with simulated.daemon() as daemon:
        until(lambda: daemon.value("palegreen_driver_library_mismatch") == 1, 10)
        assert daemon.value("palegreen_source_up", source="nvml") == 0
        assert len(daemon.events("source.down")) == 1
        simulated.play({"gpus": 1})
        until(lambda: daemon.value("palegreen_driver_library_mismatch") == 0, 10)
        until(lambda: gpus(daemon, "palegreen_gpu_up") == {"0": 1}, 5)


def test_a_gpu_added_or_removed_while_it_runs_is_noticed(machine: Callable[..., Machine]) -> None:
    simulated = machine({"gpus": 1})
    with simulated.daemon() as daemon:
        until(lambda: gpus(daemon, "palegreen_gpu_up") == {"0": 1}, 10)
        simulated.play({"gpus": 2})
        until(lambda: gpus(daemon, "palegreen_gpu_up") == {"0": 1, "1": 1}, 15)
        simulated.play({"gpus": 1})
        until(lambda: gpus(daemon, "palegreen_gpu_up") == {"0": 1, "1": 0}, 15)
        until(lambda: daemon.value("palegreen_driver_gpus") == 1, 15)


def test_mig_devices_that_are_created_appear_and_those_destroyed_go(machine: Callable[..., Machine]) -> None:
    simulated = machine({"gpus": [{"mig": [{"profile": "3g.40gb"}]}]})
    with simulated.daemon() as daemon:

        def profiles() -> list[str]:
            return sorted(s.labels["profile"] for s in daemon.samples() if s.name == "palegreen_gpu_mig_info")

        until(lambda: profiles() == ["3g.40gb"], 10)
        simulated.play({"gpus": [{"mig": [{"profile": "3g.40gb"}, {"profile": "1g.10gb"}]}]})
        until(lambda: profiles() == ["1g.10gb", "3g.40gb"], 15)
        simulated.play({"gpus": [{"mig": [{"profile": "3g.40gb"}]}]})
        until(lambda: profiles() == ["3g.40gb"], 15)


def test_a_process_that_ends_leaves_no_series(machine: Callable[..., Machine]) -> None:
    simulated = machine({"gpus": [{"processes": [{"pid": 7001}, {"pid": 7002}]}]})
    with simulated.daemon() as daemon:
        until(lambda: daemon.value("palegreen_gpu_process_memory_used_bytes", pid="7001"), 10)
        simulated.play({"gpus": [{"processes": [{"pid": 7002}]}]})
        until(lambda: daemon.value("palegreen_gpu_process_memory_used_bytes", pid="7001") is None, 5)
        assert daemon.value("palegreen_gpu_process_memory_used_bytes", pid="7002") == GIB


def test_without_a_driver_the_gpu_source_says_why_and_the_rest_works() -> None:
    with Daemon("--nvml", "--nvml-library", "/nonexistent/libnvidia-ml.so.1") as daemon:
        until(lambda: daemon.value("palegreen_source_up", source="nvml") == 0, 10)
        assert "/nonexistent/libnvidia-ml.so.1" in daemon.events("source.down")[0]
        assert not [s for s in daemon.samples() if s.name.startswith("palegreen_gpu_")]


def test_a_stop_does_not_wait_for_a_hung_driver(machine: Callable[..., Machine]) -> None:
    import signal

    simulated = machine({"gpus": 2})
    with simulated.daemon() as daemon:
        until(lambda: sum(gpus(daemon, "palegreen_gpu_up").values()) == 2, 10)
        simulated.play({"gpus": 2, "hang": ["*"]})
        until(lambda: sum(gpus(daemon, "palegreen_gpu_up").values()) == 0, 15)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait(2) == 0


def checked(simulated: Machine) -> dict[str, dict[str, Any]]:
    done = run(
        "check", "--json", "--listen-address", "127.0.0.1:0", "--nvml-library", str(simulated.library),
        env=simulated.environment,
    )  # fmt: skip
    return {finding["check"]: finding for finding in json.loads(done.stdout)}


def test_check_names_the_driver_and_its_gpus(machine: Callable[..., Machine]) -> None:
    found = checked(machine({"gpus": 2}))
    assert found["driver"]["ok"]
    assert "simulated" in found["driver"]["detail"]
    assert found["gpus"] == {"check": "gpus", "ok": True, "detail": "2 GPUs: NVIDIA H100 80GB HBM3", "fix": ""}


def test_check_says_what_to_do_about_a_driver_mismatch(machine: Callable[..., Machine]) -> None:
    driver = checked(machine({"gpus": 1, "init": "LIB_RM_VERSION_MISMATCH"}))["driver"]
    assert not driver["ok"]
    assert "different versions" in driver["detail"]
    assert "reboot" in driver["fix"]


def test_check_names_a_gpu_that_does_not_answer(machine: Callable[..., Machine]) -> None:
    found = checked(machine({"gpus": [{}, {"lost": True}]}))["gpus"]
    assert not found["ok"]
    assert "1 not answering" in found["detail"]
