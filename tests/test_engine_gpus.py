"""Which GPUs an engine computes on: by its pod or by who listens on its port; absent where that is not known."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from support.daemon import Daemon
from support.engine import VLLM_PAGE
from support.gpus import Machine
from support.host import Host
from support.server import Server, response
from support.waiting import until

from palegreen.exporter.attribution.owners import Owners
from palegreen.exporter.attribution.replicas import EngineGpus, GpuName, Holding, Replica
from palegreen.exporter.nvml.usage import DeviceUse, ProcessUse

METRIC = "palegreen_engine_gpu_info"
A, B = "a" * 64, "b" * 64
UID, UID_B = "1f0c7a2e-0d2b-4a8e-9b1c-5f2d3e4a5b6c", "9e8d7c6b-5a49-4382-9716-05f4e3d2c1b0"
POD, POD_B = f"/kubepods/pod{UID}/{A}", f"/kubepods/pod{UID_B}/{B}"
SERVICE = "/system.slice/vllm.service"
HERE = Replica("http://127.0.0.1:8000")


class Node:
    """A host in a folder, with GPUs that tests describe."""

    def __init__(self, root: Path) -> None:
        self.host = Host(root)
        self.uses: list[DeviceUse] = []
        self.held: list[Holding] = []
        self.now = 1000.0
        owners = Owners(self.host.proc, self.host.logs, clock=lambda: self.now)
        self.engine_gpus = EngineGpus(lambda: self.uses, lambda: self.held, owners, clock=lambda: self.now)

    def gpu(self, number: int, *pids: int, mig: str = "") -> None:
        """What the driver lists on a GPU or a MIG device of it."""
        processes = tuple(ProcessUse(pid, None, None) for pid in pids)
        self.uses.append(DeviceUse(f"GPU-{number}", str(number), mig, 1, 1, processes))

    def of(self, replica: Replica = HERE) -> list[str]:
        return [gpu.mig or gpu.uuid for gpu in self.engine_gpus.of(replica)]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


# A pod.


def test_an_engine_of_a_pod_has_the_gpus_that_processes_of_the_pod_are_on(node: Node) -> None:
    node.host.pod("prod", "chat-0", UID, vllm=A)
    node.host.pod("prod", "embed-0", UID_B, tei=B)
    node.host.process(11, POD)
    node.host.process(12, POD)
    node.host.process(21, POD_B)
    node.gpu(0, 11)
    node.gpu(1, 12)
    node.gpu(2, 21, mig="MIG-5")
    assert node.of(Replica("http://10.1.2.3:8000", "prod", "chat-0")) == ["GPU-0", "GPU-1"]
    assert node.engine_gpus.of(Replica("http://10.1.2.4:80", "prod", "embed-0")) == (GpuName("GPU-2", "MIG-5"),)


def test_what_the_kubelet_gave_to_the_pod_counts_too_once(node: Node) -> None:
    node.host.pod("prod", "chat-0", UID, vllm=A)
    node.host.process(11, POD)
    node.gpu(0, 11)
    node.held = [
        Holding("prod", "chat-0", GpuName("GPU-0", "")),
        Holding("prod", "chat-0", GpuName("GPU-1", "")),
        Holding("test", "chat-0", GpuName("GPU-2", "")),
        Holding("prod", "chat-0", GpuName("", "")),
        Holding("prod", "chat-0", GpuName("", "MIG-1")),
    ]
    replica = Replica("http://10.1.2.3:8000", "prod", "chat-0")
    assert node.of(replica) == ["GPU-0", "GPU-1"], "without those that no GPU could be told for"
    node.uses = []
    assert node.of(replica) == ["GPU-0", "GPU-1"], "a GPU that was lost is the pod's all the same"


def test_an_engine_whose_pod_is_unknown_has_none_whoever_listens_on_its_port(node: Node) -> None:
    node.host.process(11, POD)  # no log folder names it
    node.host.listen(11, 8000, 77)
    node.gpu(0, 11)
    assert node.of(Replica("http://127.0.0.1:8000", "prod", "chat-0")) == []
    assert node.of() == ["GPU-0"]


# A port.


def test_the_process_that_listens_and_its_descendants_are_the_engine(node: Node) -> None:
    node.host.process(10, "/user.slice/user-0.slice/session-1.scope")
    node.host.process(11, "/", parent=10)
    node.host.process(12, "/", parent=11)
    node.host.process(13, "/", parent=12)
    node.host.process(21, "/", parent=10)
    node.host.listen(11, 8000, 77)
    node.gpu(0, 12)
    node.gpu(1, 13, 21)
    node.gpu(2, 21)
    node.gpu(3, 10)
    node.gpu(4, 404)
    assert node.of() == ["GPU-0", "GPU-1"]


def test_two_engines_of_one_session_are_told_apart_by_their_ports(node: Node) -> None:
    for pid, port, inode in ((11, 8000, 77), (21, 8001, 78)):
        node.host.process(pid, "/user.slice/user-0.slice/session-1.scope", parent=5)
        node.host.listen(pid, port, inode)
    node.gpu(0, 11)
    node.gpu(1, 21)
    assert [node.of(), node.of(Replica("http://localhost:8001/metrics"))] == [["GPU-0"], ["GPU-1"]]


@pytest.mark.parametrize("home", [SERVICE, POD, "/user.slice/user-7.slice/user@7.service/app.slice/vllm.service"])
def test_workers_that_are_no_descendants_are_found_in_the_same_service_or_container(node: Node, home: str) -> None:
    for pid in (11, 12, 13):
        node.host.process(pid, home)
    node.host.process(21, "/system.slice/other.service")
    node.host.listen(11, 8000, 77)
    node.gpu(0, 12)
    node.gpu(1, 13)
    node.gpu(2, 21)
    assert node.of() == ["GPU-0", "GPU-1"]


@pytest.mark.parametrize(
    "home",
    [
        "/user.slice/user-0.slice/session-1.scope",
        "/user.slice/user-7.slice/user@7.service/init.scope",
        "/user.slice/user-7.slice/user@7.service",
        "/slurm/uid_1000/job_7",
        "/",
    ],
)
def test_a_session_or_no_unit_joins_nobody(node: Node, home: str) -> None:
    node.host.process(11, home)
    node.host.process(12, home)
    node.host.listen(11, 8000, 77)
    node.gpu(0, 12)
    assert node.of() == []


def test_two_jobs_below_one_service_are_not_each_others(node: Node) -> None:
    node.host.process(11, "/system.slice/slurmd.service/job_7")
    node.host.process(12, "/system.slice/slurmd.service/job_8")
    node.host.listen(11, 8000, 77)
    node.gpu(0, 12)
    assert node.of() == []


def test_of_two_engines_in_one_container_neither_gets_what_cannot_be_told_apart(node: Node) -> None:
    other = Replica("http://127.0.0.1:8001")
    node.engine_gpus.configured = (HERE, other)
    for pid, parent in ((11, 5), (21, 5), (22, 21)):
        node.host.process(pid, POD, parent=parent)
    node.host.listen(11, 8000, 77)
    node.host.listen(21, 8001, 78)
    node.gpu(0, 22)
    assert [node.of(), node.of(other)] == [[], ["GPU-0"]]


def test_a_socket_that_the_first_process_holds_for_its_service_does_not_make_all_its_descendants(node: Node) -> None:
    node.host.process(1, "/init.scope", parent=0)
    node.host.process(11, SERVICE)
    node.host.process(21, "/system.slice/other.service")
    node.host.listen(1, 8000, 77)
    node.host.listen(11, 8000, 77)
    node.gpu(0, 11)
    node.gpu(1, 21)
    assert node.of() == ["GPU-0"]


@pytest.mark.parametrize(
    ("url", "gpus"),
    [
        ("http://127.0.0.1:8000", ["GPU-0"]),
        ("http://127.0.0.2:8000", ["GPU-1"]),
        ("http://[::1]:8000", ["GPU-1"]),
        ("http://0.0.0.0:8000", ["GPU-0"]),
        ("http://[::1]:9000", ["GPU-2"]),
        ("http://127.0.0.1:9000", ["GPU-2"]),
        ("http://127.0.0.1:8001", []),
        ("http://192.0.2.1:8000", []),
        ("http://nowhere.invalid:8000", []),
    ],
)
def test_the_socket_is_the_one_that_a_connection_would_reach(node: Node, url: str, gpus: list[str]) -> None:
    where = (("127.0.0.1", 8000), ("0.0.0.0", 8000), ("::", 9000), ("::1", 8000))
    for pid, (address, port) in enumerate(where, 11):
        node.host.process(pid, "/")
        node.host.listen(pid, port, pid, address)
    node.gpu(0, 11)
    node.gpu(1, 12, 14)
    node.gpu(2, 13)
    assert node.of(Replica(url)) == gpus


def test_an_address_of_this_machine_that_is_no_loopback_is_known(node: Node) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        with contextlib.suppress(OSError):
            probe.connect(("192.0.2.1", 9))  # sends nothing; chooses the address packets would come from
        own = probe.getsockname()[0]
    if own.startswith(("0.", "127.")):
        pytest.skip("this machine has no address but the loopback's")
    node.host.process(11, "/")
    node.host.listen(11, 8000, 77, "0.0.0.0")
    node.gpu(0, 11)
    assert node.of(Replica(f"http://{own}:8000")) == ["GPU-0"]


def test_an_engine_that_was_started_again_is_found_again(node: Node) -> None:
    node.host.process(11, "/")
    node.host.listen(11, 8000, 77)
    node.gpu(0, 11)
    assert node.of() == ["GPU-0"]
    node.host.end(11)
    assert node.of() == [], "the pid the driver still lists is nobody's"
    node.host.process(31, "/")
    node.host.listen(31, 8000, 79)
    node.gpu(1, 31)
    assert node.of() == ["GPU-1"]


def test_open_files_that_may_not_be_read_name_nobody_until_they_may(node: Node) -> None:
    node.host.process(11, "/")
    node.host.listen(11, 8000, 77)
    folder = node.host.proc / "11/fd"
    folder.rename(node.host.proc / "11/hidden")
    node.gpu(0, 11)
    assert node.of() == []
    (node.host.proc / "11/hidden").rename(folder)
    assert node.of() == [], "not searched for at each reading"
    node.now += 30
    assert node.of() == ["GPU-0"]


@pytest.mark.parametrize("text", ["", "\x00\xff", "  sl\n0: 0100007F 0A\n", f"  sl\n{'zz ' * 12}\n"])
def test_a_list_of_sockets_that_makes_no_sense_tells_nothing(node: Node, text: str) -> None:
    (node.host.proc / "net").mkdir()
    (node.host.proc / "net/tcp").write_text(text, encoding="latin-1")
    node.gpu(0, 11)
    assert node.of() == []


# The daemon, over the simulated driver.


def shown(text: str) -> tuple[dict[str, str], list[Sample]]:
    """UUIDs by index, and the series that join."""
    found = [s for family in text_string_to_metric_families(text) for s in family.samples]
    uuids = {s.labels["gpu"]: s.labels["uuid"] for s in found if s.name == "palegreen_gpu_info"}
    return uuids, [s for s in found if s.name == METRIC]


@pytest.fixture
def workers() -> Iterator[Sequence[int]]:
    """A child of this process, and a child of its own."""
    program = "import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=0); "
    program += "print(c.pid, flush=True); c.wait()"
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    yield child.pid, grandchild
    child.communicate("\n", timeout=10)


def test_tensor_parallel_workers_on_two_gpus_join_their_engine_to_both(
    machine: Callable[..., Machine], workers: Sequence[int]
) -> None:
    """This process listens, as an engine's API server does; real sockets, processes and /proc."""
    gpus = [{"processes": [{"pid": pid}]} for pid in (*workers, os.getppid())]
    with Server({"/metrics": response(VLLM_PAGE)}) as engine:
        uuids, joined = shown(machine({"gpus": gpus}).once("--engine", engine.url))
    assert [s.labels["uuid"] for s in joined] == sorted([uuids["0"], uuids["1"]])
    assert {(s.labels["model"], s.labels["engine"], s.labels["mig"], s.value) for s in joined} == {("m", "vllm", "", 1)}
    assert {s.labels["instance_id"] for s in joined} == {f"{socket.gethostname()}:{engine.port}"}


def test_an_engine_on_a_mig_device_is_joined_to_that_alone(machine: Callable[..., Machine]) -> None:
    gpu = {
        "mig": [{"profile": "3g.40gb", "uuid": "MIG-1"}, {"profile": "1g.10gb", "uuid": "MIG-2"}],
        "processes": [{"pid": os.getpid(), "gpu_instance": 2, "compute_instance": 0}],
    }
    with Server({"/metrics": response(VLLM_PAGE)}) as engine:
        text = machine({"gpus": [gpu]}).once("--engine", engine.url)
    uuids, joined = shown(text)
    assert [(s.labels["uuid"], s.labels["mig"]) for s in joined] == [(uuids["0"], "MIG-2")]


def test_an_engine_of_a_pod_is_joined_by_the_daemon_and_one_of_an_unknown_pod_is_not(
    machine: Callable[..., Machine], tmp_path: Path
) -> None:
    host = Host(tmp_path / "host")
    host.pod("prod", "chat-0", UID, vllm=A)
    host.process(4001, POD)
    config = tmp_path / "config.yaml"
    with Server({"/metrics": response(VLLM_PAGE)}) as engine, Server({"/metrics": response(VLLM_PAGE)}) as other:
        engines = [
            {"url": engine.url, "namespace": "prod", "pod": "chat-0"},
            {"url": other.url, "namespace": "prod", "pod": "chat-1"},
        ]
        config.write_text(yaml.safe_dump({"host_root": str(host.root), "engines": engines}), encoding="utf-8")
        simulated = machine({"gpus": [{"processes": [{"pid": 4001}]}, {}]})
        _, joined = shown(simulated.once("--config", str(config)))
        assert [s.labels["instance_id"] for s in joined] == ["prod/chat-0"]
        _, joined = shown(simulated.once("--config", str(config), "--no-attribution"))
        assert joined == []


def test_scrapes_show_a_worker_that_came_later_and_drop_one_that_went(
    machine: Callable[..., Machine], workers: Sequence[int]
) -> None:
    simulated = machine({"gpus": [{}, {}]})
    with (
        Server({"/metrics": response(VLLM_PAGE)}) as engine,
        simulated.daemon("--engine", engine.url, "--engine-interval", "200ms") as daemon,
    ):
        until(lambda: daemon.value("palegreen_engine_requests_running") == 3)
        assert joins(daemon) == set()
        simulated.play({"gpus": [{}, {"processes": [{"pid": workers[1]}]}]})
        until(lambda: joins(daemon) == {"1"})
        simulated.play({"gpus": [{}, {}]})
        until(lambda: joins(daemon) == set())


def joins(daemon: Daemon) -> set[str]:
    """Indices of the GPUs the engine is joined to."""
    uuids, joined = shown(daemon.get()[2].decode())
    indices = {uuid: index for index, uuid in uuids.items()}
    return {indices[s.labels["uuid"]] for s in joined}
