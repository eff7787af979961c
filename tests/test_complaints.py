"""What users of GPU exporters suffer from, one test for each; the issues are those of dcgm-exporter unless named."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from support.daemon import PROGRAM, Daemon, environment
from support.gpus import Machine
from support.waiting import until

LOST: dict[str, Any] = {"lost": True}
ACTIVITY = "palegreen_gpu_sm_active_seconds_total"


def of_gpu(daemon: Daemon, gpu: str) -> set[str]:
    """Names of the metrics that a GPU has now."""
    return {sample.name for sample in daemon.samples() if sample.labels.get("gpu") == gpu}


def host(root: Path, pods: dict[int, tuple[str, str, str]], started: int = 100) -> Path:
    """A host's /proc and /var/log with one containerd process for each pid: namespace, pod, container."""
    logs = root / "var" / "log" / "containers"
    logs.mkdir(parents=True, exist_ok=True)
    for pid, (namespace, pod, container) in pods.items():
        identity = f"{pid:064x}"
        folder = root / "proc" / str(pid)
        folder.mkdir(parents=True, exist_ok=True)
        fields = " ".join(["S", *("0" for _ in range(18)), str(started), *("0" for _ in range(30))])
        (folder / "stat").write_text(f"{pid} (python) {fields}\n")
        slices = f"/kubepods.slice/kubepods-pod{pid}.slice/cri-containerd-{identity}.scope"
        (folder / "cgroup").write_text(f"0::{slices}\n")
        link = logs / f"{pod}_{namespace}_{container}-{identity}.log"
        if not link.is_symlink():
            link.symlink_to("/nowhere")
    return root


def by_pod(daemon: Daemon, name: str) -> dict[str, float]:
    return {s.labels["pod"]: s.value for s in daemon.samples() if s.name == name}


def test_complaint_1_values_of_a_lost_gpu_do_not_stay(machine: Callable[..., Machine]) -> None:
    """#164, #348, gpu-monitoring-tools#188."""
    played = machine({"gpus": 2})
    with played.daemon() as daemon:
        until(lambda: daemon.value("palegreen_gpu_temperature_celsius", gpu="1"))
        played.play({"gpus": [{}, LOST]})
        until(lambda: daemon.value("palegreen_gpu_up", gpu="1") == 0)
        assert of_gpu(daemon, "1") == {"palegreen_gpu_up", "palegreen_gpu_losses_total"}
        assert daemon.value("palegreen_gpu_losses_total", gpu="1", reason="lost") == 1
        played.play({"gpus": 2})
        until(lambda: daemon.value("palegreen_gpu_up", gpu="1") == 1)


def test_complaint_2_xids_are_counted_with_repeats_and_do_not_stick(machine: Callable[..., Machine]) -> None:
    """#500, #190; DCGM#277, #235."""
    events = [{"gpu": 0, "xid": 31}, {"gpu": 0, "xid": 31}, {"gpu": 0, "xid": 79}]
    played = machine({"gpus": 1})
    with played.daemon() as daemon:
        until(lambda: daemon.value("palegreen_gpu_up") == 1)
        played.play({"gpus": 1, "events": events})
        until(lambda: daemon.value("palegreen_gpu_xid_errors_total", xid="79"))
        assert daemon.value("palegreen_gpu_xid_errors_total", xid="31", **{"class": "application"}) == 2
        assert daemon.value("palegreen_gpu_xid_errors_total", xid="79", **{"class": "needs_reset"}) == 1
        at = daemon.value("palegreen_gpu_xid_last_timestamp_seconds", xid="31")
        assert at is not None
        assert abs(at - time.time()) < 60
        played.play({"gpus": 1, "events": [*events, {"gpu": 0, "xid": 31}]})
        until(lambda: daemon.value("palegreen_gpu_xid_errors_total", xid="31") == 3)


def test_complaint_3_one_failing_gpu_does_not_fail_the_scrape(machine: Callable[..., Machine]) -> None:
    """One entity in error turned the whole scrape into HTTP 500."""
    with machine({"gpus": [{}, {"errors": {"*": "UNKNOWN"}}, {}]}).daemon() as daemon:
        for gpu in ("0", "2"):
            until(lambda gpu=gpu: daemon.value("palegreen_gpu_memory_used_bytes", gpu=gpu))
        status, _, _ = daemon.get()
        assert status == 200
        until(lambda: daemon.value("palegreen_gpu_up", gpu="1") == 0)


def test_complaint_4_activity_that_cannot_be_measured_is_absent_and_not_0(machine: Callable[..., Machine]) -> None:
    """#662; DCGM#202."""
    scenario = {"gpus": [{}, {"gpm": False}, {"gpm_tensor": None}]}
    with machine(scenario).daemon() as daemon:
        until(lambda: (daemon.value(ACTIVITY, gpu="0") or 0) > 0 and (daemon.value(ACTIVITY, gpu="2") or 0) > 0)
        assert daemon.value(ACTIVITY, gpu="1") is None
        assert daemon.value("palegreen_gpu_tensor_active_seconds_total", gpu="2") is None


def test_complaint_5_memory_does_not_grow_while_processes_and_gpus_come_and_go(
    machine: Callable[..., Machine],
) -> None:
    """#702, #536, #609; pytorch/ci-infra#1011."""

    def scenario(turn: int) -> dict[str, Any]:
        processes = [{"pid": 1000 + 50 * turn + n, "gpu_utilization": 2} for n in range(40)]
        return {"gpus": [{"processes": processes}, LOST if turn % 2 else {}]}

    played = machine(scenario(0))
    with played.daemon("--nvml-interval", "100ms", "--nvml-sample-interval", "20ms") as daemon:
        resident: list[float] = []
        for turn in range(16):
            played.play(scenario(turn))
            pid = str(1000 + 50 * turn)
            until(lambda pid=pid: daemon.value("palegreen_gpu_process_memory_used_bytes", pid=pid) is not None)
            for _ in range(20):
                daemon.get()
            resident.append(daemon.value("process_resident_memory_bytes") or 0)
        assert resident[-1] < 80 << 20
        # the last half of 640 new processes and 16 changes must fit into what allocators round up to
        assert resident[-1] - resident[7] < 2 << 20


def test_complaint_6_pod_labels_do_not_depend_on_the_kubelet(machine: Callable[..., Machine], tmp_path: Path) -> None:
    """#342, #411, #477, #529, #509."""
    root = host(tmp_path / "host", {4001: ("prod", "llama-0", "vllm")})
    with machine({"gpus": [{"processes": [{"pid": 4001, "memory_used": "40GiB"}]}]}).daemon(
        "--host-root", str(root)
    ) as daemon:
        until(lambda: by_pod(daemon, "palegreen_container_gpu_memory_used_bytes"))
        name = "palegreen_container_gpu_memory_used_bytes"
        labels = {"namespace": "prod", "pod": "llama-0", "container": "vllm"}
        assert daemon.value(name, **labels) == 40 << 30


@pytest.mark.parametrize("kind", ["compute", "mps"])
def test_complaint_7_pods_that_share_a_gpu_have_numbers_of_their_own(
    kind: str, machine: Callable[..., Machine], tmp_path: Path
) -> None:
    """#587, #582, #307, #638: time-slicing, and MPS."""
    root = host(tmp_path / "host", {11: ("prod", "a", "vllm"), 12: ("prod", "b", "vllm")})
    processes = [
        {"pid": 11, "type": kind, "memory_used": "30GiB", "gpu_utilization": 60},
        {"pid": 12, "type": kind, "memory_used": "10GiB", "gpu_utilization": 15},
    ]
    with machine({"gpus": [{"processes": processes}]}).daemon("--host-root", str(root)) as daemon:
        until(lambda: by_pod(daemon, "palegreen_container_gpu_busy_seconds_total").get("a", 0) > 1)
        busy = by_pod(daemon, "palegreen_container_gpu_busy_seconds_total")
        assert busy["b"] / busy["a"] == pytest.approx(15 / 60, rel=0.01)
        memory = by_pod(daemon, "palegreen_container_gpu_memory_used_bytes")
        assert memory == {"a": 30 << 30, "b": 10 << 30}


def test_complaint_8_mig_devices_have_utilisation_memory_and_pods(
    machine: Callable[..., Machine], tmp_path: Path
) -> None:
    """#105, #380, #512, #599."""
    root = host(tmp_path / "host", {51: ("prod", "a", "vllm"), 52: ("prod", "b", "vllm")})
    mig = [{"profile": "3g.40gb", "memory_used": "22GiB"}, {"profile": "1g.10gb", "memory_used": "3GiB"}]
    processes = [
        {"pid": 51, "gpu_instance": 1, "compute_instance": 0, "memory_used": "22GiB"},
        {"pid": 52, "gpu_instance": 2, "compute_instance": 0, "memory_used": "3GiB"},
    ]
    with machine({"gpus": [{"mig": mig, "processes": processes}]}).daemon("--host-root", str(root)) as daemon:
        until(lambda: len([s for s in daemon.samples() if s.name == ACTIVITY and s.labels["mig"]]) == 2)
        found = {s.labels["mig"] for s in daemon.samples() if s.name == "palegreen_gpu_busy_seconds_total"}
        assert len(found) == 2
        until(lambda: by_pod(daemon, "palegreen_container_gpu_memory_used_bytes") == {"a": 22 << 30, "b": 3 << 30})
        used = [s for s in daemon.samples() if s.name == "palegreen_gpu_memory_used_bytes" and s.labels["mig"]]
        assert sorted(s.value for s in used) == [3 << 30, 22 << 30]
        of_pods = {s.labels["mig"] for s in daemon.samples() if s.name == "palegreen_container_gpu_memory_used_bytes"}
        assert of_pods == found


def test_complaint_9_a_hung_driver_does_not_hold_up_the_scrape(machine: Callable[..., Machine]) -> None:
    """#607, #625, #311."""
    played = machine({"gpus": 8})
    with played.daemon() as daemon:
        until(lambda: daemon.value("palegreen_gpu_up", gpu="7") == 1)
        played.play({"gpus": 8, "hang": ["*"]})
        until(lambda: daemon.value("palegreen_gpu_up", gpu="0") == 0)
        # each of these would wait for the driver if it asked it anything
        for _ in range(50):
            assert daemon.get()[0] == 200
        assert daemon.value("palegreen_gpu_losses_total", gpu="0", reason="hung") == 1
        played.play({"gpus": 8})
        until(lambda: daemon.value("palegreen_gpu_up", gpu="0") == 1)


def test_complaint_10_neither_root_nor_a_capability_is_needed(machine: Callable[..., Machine]) -> None:
    """#165, #143: root here has none of root's rights."""
    bare = ["setpriv", "--securebits", "+noroot", "--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs"]
    if os.geteuid() == 0 and (
        shutil.which("setpriv") is None or subprocess.run([*bare, "true"], check=False).returncode
    ):
        pytest.skip("root cannot give up its rights here: no setpriv, or not allowed")
    played = machine({"gpus": 1})
    command = [PROGRAM, "node", "--once", "--nvml-library", str(played.library)]
    done = subprocess.run(
        command if os.geteuid() else [*bare, *command],
        capture_output=True, text=True, timeout=60, check=False, env=environment(played.environment),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "palegreen_gpu_memory_used_bytes{" in done.stdout
    assert re.search(r'^palegreen_gpu_up\{.*gpu="0".*\} 1', done.stdout, re.MULTILINE)


def test_complaint_11_an_unbind_finds_no_device_held_open(machine: Callable[..., Machine]) -> None:
    """#706."""
    played = machine({"gpus": 2})
    held = next(iter(played.environment.values()))
    with played.daemon() as daemon:
        until(lambda: daemon.value("palegreen_gpu_up", gpu="1") == 1)
        descriptors = Path(f"/proc/{daemon.pid}/fd")
        links = lambda: [str(link.readlink()) for link in descriptors.iterdir() if link.is_symlink()]  # noqa: E731
        assert any(held in link for link in links())
        played.play({"gpus": 2, "events": [{"gpu": 1, "type": "unbind"}]})
        until(lambda: not any(held in link for link in links()), 5)
        played.play({"gpus": 1, "events": [{"gpu": 0, "type": "unbind"}]})
        until(lambda: daemon.value("palegreen_gpu_up", gpu="0") == 1, 20)


def test_complaint_12_label_values_are_escaped(machine: Callable[..., Machine]) -> None:
    """A text template wrote them as they were."""
    name = 'NVIDIA "H100"\\ {80GB}, HBM3'
    with machine({"gpus": [{"name": name}]}).daemon() as daemon:
        until(lambda: daemon.value("palegreen_gpu_up") == 1)
        shown = [s.labels["name"] for s in daemon.samples() if s.name == "palegreen_gpu_info"]
        assert shown == [name]
        _, headers, body = daemon.get(headers={"Accept": "application/openmetrics-text", "Accept-Encoding": "gzip"})
        assert headers["content-encoding"] == "gzip"
        families = list(parse_openmetrics(gzip.decompress(body).decode()))
        assert any(s.labels.get("name") == name for family in families for s in family.samples)
