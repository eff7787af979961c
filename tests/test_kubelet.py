"""Which pod holds which GPU, asked of a real gRPC server on a unix socket."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socketserver import BaseRequestHandler, UnixStreamServer
from threading import Event, Thread

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from support.daemon import Daemon, run
from support.waiting import until

from palegreen.exporter.kubelet.client import KubeletError
from palegreen.exporter.kubelet.source import KubeletSource
from palegreen.exporter.nvml.usage import DeviceUse
from palegreen.runtime.exposition import Exposition

pytest.importorskip("grpc", reason="grpcio is not installed (the extra kubelet)")
pytest.importorskip("google.protobuf", reason="protobuf is not installed (the extra kubelet)")

from support.kubelet import Kubelet, claim, devices, field, pod

METRIC = "palegreen_gpu_allocation_info"
GPU = tuple(f"GPU-{n}4c1b3a2-55aa-4c0e-9d5e-0123456789ab" for n in range(3))
MIG = tuple(f"MIG-{n}c73ab1c-6cb7-59b6-be7e-21c4ac35c3b6" for n in range(3))
# two GPUs whose minor numbers are the other way round, and one that is cut into three
NODE = (
    DeviceUse(GPU[0], "0", "", 0, 0, (), minor=1),
    DeviceUse(GPU[1], "1", "", 0, 0, (), minor=0),
    DeviceUse(GPU[2], "2", "", 0, 0, (), minor=2),
    DeviceUse(GPU[2], "2", MIG[0], 0, 0, (), minor=2, gpu_instance=1, compute_instance=0),
    DeviceUse(GPU[2], "2", MIG[1], 0, 0, (), minor=2, gpu_instance=2, compute_instance=0),
    DeviceUse(GPU[2], "2", MIG[2], 0, 0, (), minor=2, gpu_instance=2, compute_instance=1),
)
MINORS = """\
config 1
monitor 2
gpu2/gi1/access 300
gpu2/gi1/ci0/access 301
gpu2/gi2/access 309
gpu2/gi2/ci0/access 310
gpu2/gi2/ci1/access 311
"""


class Node:
    """A node with a folder for everything, and a source that reads it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "kubelet.sock"
        self.cdi = folder / "cdi"
        self.minors = folder / "mig-minors"
        self.uses: tuple[DeviceUse, ...] = NODE
        self.source = self.make()

    def make(self, patience: float = 10.0) -> KubeletSource:
        return KubeletSource(self.path, lambda: self.uses, patience=patience, cdi=self.cdi, mig_minors=self.minors)

    def allocations(self) -> list[dict[str, str]]:
        """Labels of the series, without the empty ones."""
        text = Exposition([self.source.collect()]).body().decode()
        return [
            {name: value for name, value in sample.labels.items() if value}
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def spec(self, name: str, kind: str, given: dict[str, list[str]]) -> None:
        """A CDI specification as the driver for dynamic allocation writes it."""
        self.cdi.mkdir(exist_ok=True)
        edits = {
            device: {"deviceNodes": [{"path": path, "hostPath": f"/driver{path}"} for path in paths]}
            for device, paths in given.items()
        }
        listed = [{"name": device, "containerEdits": edit} for device, edit in edits.items()]
        text = yaml.safe_dump({"cdiVersion": "0.5.0", "kind": kind, "devices": listed})
        (self.cdi / name).write_text(text)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.source.close()


def held(**labels: str) -> dict[str, str]:
    return {"namespace": "default", "pod": "p", "container": "main"} | labels


PLAIN = "nvidia.com/gpu"


def test_a_gpu_of_the_device_plugin_carries_pod_container_and_the_gpus_own_labels(node: Node) -> None:
    with Kubelet(node.path, pod("chat-0", devices(PLAIN, GPU[1], GPU[0]), container="vllm", namespace="llm")):
        common = {"namespace": "llm", "pod": "chat-0", "container": "vllm", "resource": PLAIN}
        assert node.allocations() == [common | {"uuid": GPU[0], "gpu": "0"}, common | {"uuid": GPU[1], "gpu": "1"}]
        assert node.source.describe() == f"GPUs of containers: 2 held ({node.path})"


def test_a_mig_device_carries_its_own_uuid_and_its_gpus(node: Node) -> None:
    with Kubelet(node.path, pod("p", devices("nvidia.com/mig-1g.10gb", MIG[1]))):
        wanted = held(uuid=GPU[2], gpu="2", mig=MIG[1], resource="nvidia.com/mig-1g.10gb")
        assert node.allocations() == [wanted]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (f"{GPU[0]}::3", {"uuid": GPU[0], "gpu": "0"}),
        (f"{MIG[0]}::1", {"uuid": GPU[2], "gpu": "2", "mig": MIG[0]}),
        ("1", {"uuid": GPU[1], "gpu": "1"}),
        ("1::7", {"uuid": GPU[1], "gpu": "1"}),
        ("nvidia1", {"uuid": GPU[0], "gpu": "0"}),
        ("nvidia0/vgpu4", {"uuid": GPU[1], "gpu": "1"}),
        ("nvidia2/gi1", {"uuid": GPU[2], "gpu": "2", "mig": MIG[0]}),
        ("nvidia2/gi1/vgpu0", {"uuid": GPU[2], "gpu": "2", "mig": MIG[0]}),
        ("nvidia2/gi2", {"device": "nvidia2/gi2"}),  # it holds two compute instances: which one is not said
        ("9", {"device": "9"}),
        ("2:0", {"device": "2:0"}),
        ("GPU-odd", {"device": "GPU-odd"}),
        ("GPU-f4c1b3a2-55aa-4c0e-9d5e-0123456789ab", {"uuid": "GPU-f4c1b3a2-55aa-4c0e-9d5e-0123456789ab"}),
        ("MIG-f4c1b3a2-55aa-4c0e-9d5e-0123456789ab", {"mig": "MIG-f4c1b3a2-55aa-4c0e-9d5e-0123456789ab"}),
        (f"MIG-{GPU[0]}/1/0", {"uuid": GPU[0], "mig": f"MIG-{GPU[0]}/1/0"}),
    ],
)
def test_a_device_id_is_the_device_it_names_or_is_published_as_it_is(
    node: Node, given: str, found: dict[str, str]
) -> None:
    with Kubelet(node.path, pod("p", devices(PLAIN, given))):
        assert node.allocations() == [held(resource=PLAIN) | found]


def test_pods_that_share_a_gpu_each_have_a_series_and_replicas_in_one_container_are_one(node: Node) -> None:
    shared = "nvidia.com/gpu.shared"
    pods = [pod(f"p{n}", devices(shared, f"{GPU[0]}::{n}", f"{GPU[0]}::{n + 5}")) for n in range(3)]
    with Kubelet(node.path, *pods):
        found = node.allocations()
    assert found == [held(pod=f"p{n}", resource=shared, uuid=GPU[0], gpu="0") for n in range(3)]


def test_a_renamed_resource_is_known_by_its_ids_and_other_devices_are_left_out(node: Node) -> None:
    renamed = pod("p", devices("example.com/a100", GPU[0]))
    others = pod(
        "q",
        devices("nvidia.com/hostdev", "0000:3b:00.0"),
        devices("rdma/hca", "3", "mlx5_0"),
        devices("example.com/odd", "GPU-like"),
        devices("amd.com/gpu", "0000:0c:00.0"),
    )
    with Kubelet(node.path, renamed, others):
        assert node.allocations() == [held(resource="example.com/a100", uuid=GPU[0], gpu="0")]


def test_without_the_driver_the_uuid_is_what_the_kubelet_says_and_no_index_is_given(node: Node) -> None:
    node.uses = ()
    with Kubelet(node.path, pod("p", devices(PLAIN, f"{GPU[0]}::3", "1"))):
        assert node.allocations() == [held(resource=PLAIN, device="1"), held(resource=PLAIN, uuid=GPU[0])]


def test_until_the_driver_knows_its_gpus_the_list_is_read_again_soon(node: Node) -> None:
    node.uses = ()
    with Kubelet(node.path, pod("p", devices(PLAIN, GPU[0]))):
        assert node.allocations() == [held(resource=PLAIN, uuid=GPU[0])]
        assert node.source.interval == 1
        node.uses = NODE
        assert node.allocations() == [held(resource=PLAIN, uuid=GPU[0], gpu="0")]
        assert node.source.interval == 15
        undriven = KubeletSource(node.path)
        undriven.collect()
        assert undriven.interval == 15
        undriven.close()


DRA = "gpu.nvidia.com"
DEVICE, CLAIM = "k8s.gpu.nvidia.com/device", "k8s.gpu.nvidia.com/claim"


def test_a_claimed_gpu_is_the_one_whose_node_the_cdi_specification_gives(node: Node) -> None:
    """Here index and minor number differ, so the name alone could mean two GPUs."""
    node.spec("k8s.gpu.nvidia.com-device_base.yaml", DEVICE, {"gpu-0": ["/dev/nvidia0", "/dev/nvidiactl"]})
    with Kubelet(node.path, pod("p", claim("mine", "gpu-0", f"{DEVICE}=gpu-0", f"{CLAIM}=1a2b-gpu-0"))):
        assert node.allocations() == [held(resource=DRA, claim="mine", uuid=GPU[1], gpu="1")]


def test_a_claimed_gpu_without_a_specification_is_told_by_its_name_only_where_that_means_one_gpu(node: Node) -> None:
    answer = [
        pod("p", claim("ambiguous", "gpu-0", f"{DEVICE}=gpu-0")),
        pod("p", claim("clear", "gpu-2", f"{DEVICE}=gpu-2")),
        pod("p", claim("unknown", "gpu-7", f"{DEVICE}=gpu-7")),
    ]
    with Kubelet(node.path, *answer):
        found = {labels.pop("claim"): labels for labels in node.allocations()}
    assert found == {
        "ambiguous": held(resource=DRA, device="gpu-0"),
        "clear": held(resource=DRA, uuid=GPU[2], gpu="2"),
        "unknown": held(resource=DRA, device="gpu-7"),
    }


def test_a_claimed_mig_device_made_on_demand_is_told_by_its_capability_node(node: Node) -> None:
    node.minors.write_text(MINORS)
    name = "gpu-2-mig-1g10gb-19-4"
    paths = ["/dev/nvidia2", "/dev/nvidia-caps/nvidia-cap309", "/dev/nvidia-caps/nvidia-cap311"]
    node.spec("k8s.gpu.nvidia.com-claim_1a2b.yaml", CLAIM, {f"1a2b-{name}": paths})
    with Kubelet(node.path, pod("p", claim("part", name, f"{CLAIM}=1a2b-{name}"))):
        assert node.allocations() == [held(resource=DRA, claim="part", uuid=GPU[2], gpu="2", mig=MIG[2])]


def test_a_claimed_mig_device_that_nothing_identifies_is_never_taken_for_its_whole_gpu(node: Node) -> None:
    name = "gpu-2-mig-9-4-4"
    pods = pod("p", claim("part", name, f"{DEVICE}={name}"))
    unknown = [held(resource=DRA, claim="part", device=name)]
    with Kubelet(node.path, pods):
        assert node.allocations() == unknown
        node.spec(
            "k8s.gpu.nvidia.com-device_base.yaml", DEVICE, {name: ["/dev/nvidia2", "/dev/nvidia-caps/nvidia-cap999"]}
        )
        assert node.allocations() == unknown
        node.minors.write_text(MINORS)
        assert node.allocations() == unknown


def test_a_specification_that_changes_is_read_again_and_an_odd_one_costs_itself_alone(node: Node) -> None:
    base = "k8s.gpu.nvidia.com-device_base.yaml"
    node.spec(base, DEVICE, {"gpu-0": ["/dev/nvidia0"]})
    (node.cdi / "nvidia.com-odd.yaml").write_text("devices: [")
    (node.cdi / "nvidia.com-odder.json").write_text("[1]")
    with Kubelet(node.path, pod("p", claim("mine", "gpu-0", f"{DEVICE}=gpu-0"))):
        assert [labels["uuid"] for labels in node.allocations()] == [GPU[1]]
        node.spec(base, DEVICE, {"gpu-0": ["/dev/nvidia1", "/dev/nvidiactl"]})
        assert [labels["uuid"] for labels in node.allocations()] == [GPU[0]]


def test_claims_of_other_drivers_are_left_out_and_a_uuid_in_a_cdi_name_is_believed(node: Node) -> None:
    domain = claim("domain", "channel-0", driver="compute-domain.nvidia.com")
    nic = claim("nic", "gpu-0", driver="sriovnetwork.k8s.cni.cncf.io")
    old = claim("old", "", f"{DRA}/gpu={GPU[1]}", driver="")  # Kubernetes before 1.31 names no driver
    with Kubelet(node.path, pod("p", domain, nic, old)):
        assert node.allocations() == [held(claim="old", uuid=GPU[1], gpu="1")]


def test_a_list_of_ten_megabytes_is_read(node: Node) -> None:
    filler = [
        pod(f"p{n}", devices("example.com/fpga", *(f"device-{n}-{m}" * 4 for m in range(200)))) for n in range(1000)
    ]
    with Kubelet(node.path, *filler, pod("last", devices(PLAIN, GPU[0]))) as kubelet:
        assert len(kubelet.answer) > 10_000_000
        assert node.allocations() == [held(pod="last", resource=PLAIN, uuid=GPU[0], gpu="0")]


def failure(source: KubeletSource) -> KubeletError:
    """How a reading fails: in one line."""
    with pytest.raises(KubeletError) as failed:
        source.collect()
    assert len(str(failed.value).splitlines()) == 1
    return failed.value


def test_a_list_over_the_limit_is_refused_with_the_limit(node: Node) -> None:
    with Kubelet(node.path, field(7, bytes(65 << 20))):
        assert failure(node.source).fix == "the limit is 64 MiB"


def test_a_list_of_more_gpus_than_a_node_can_have_is_not_believed(node: Node) -> None:
    many = pod("p", *(devices(PLAIN, f"odd-{n}") for n in range(9000)))
    with Kubelet(node.path, many):
        assert "lists 9000 GPUs held: at most 8192 are believed" in str(failure(node.source))


def test_a_restarted_kubelet_is_read_again_over_its_new_socket(node: Node) -> None:
    with Kubelet(node.path, pod("old", devices(PLAIN, GPU[0]))):
        assert [labels["pod"] for labels in node.allocations()] == ["old"]
    node.path.unlink(missing_ok=True)
    assert "kubelet.sock is not there" in failure(node.source).detail
    with Kubelet(node.path, pod("new", devices(PLAIN, GPU[0]))):
        assert until(lambda: read(node)) == ["new"]


def read(node: Node) -> list[str]:
    """Pods of the next reading, none while it still fails."""
    try:
        return [labels["pod"] for labels in node.allocations()]
    except KubeletError:
        return []


def connections(path: Path) -> set[str]:
    """Inodes of the connections a server has accepted on a unix socket (proc_net_unix: state 03 is connected)."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    return {row[6] for row in rows if row[7:] == [str(path)] and row[5] == "03"}


def test_readings_share_one_connection(node: Node) -> None:
    with Kubelet(node.path, pod("p", devices(PLAIN, GPU[0]))) as kubelet:
        assert node.allocations()
        first = connections(node.path)
        for _ in range(5):
            assert node.allocations()
        assert kubelet.calls == 6
        assert len(first) == 1
        assert connections(node.path) == first


def test_a_kubelet_that_hangs_ends_at_the_deadline(node: Node) -> None:
    released = Event()
    source = node.make(patience=0.3)
    with Kubelet(node.path, before=released.wait):
        assert failure(source).detail == "the kubelet does not answer within 0.3 s"
        released.set()
    source.close()


def test_a_server_that_is_no_kubelet_is_named_as_such(node: Node) -> None:
    with Kubelet(node.path, b"\x0a\xffnot a message"):
        assert f"{node.path} answers what is no list of pods" in str(failure(node.source))


def test_a_grpc_server_without_the_api_is_named_as_such(node: Node) -> None:
    with Kubelet(node.path, service="v1beta1.DevicePlugin"):
        assert failure(node.source).detail == f"{node.path} has no pod-resources API v1"


class _Talk(BaseRequestHandler):
    def handle(self) -> None:
        with suppress(OSError):
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_a_server_that_speaks_something_else_is_named_as_such(node: Node) -> None:
    with UnixStreamServer(str(node.path), _Talk) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        assert "kubelet" in failure(node.make(patience=2.0)).detail
        server.shutdown()
        thread.join()


def test_a_socket_that_nobody_listens_on_is_named_as_such(node: Node) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(node.path))
    assert failure(node.source).detail == f"nothing listens on {node.path}"


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's rights, where we have them."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)


def test_without_permission_it_says_so_and_what_to_do(node: Node) -> None:
    with Kubelet(node.path, pod("p", devices(PLAIN, GPU[0]))):
        node.path.chmod(0)
        with as_nobody():
            refused = failure(node.source)
        assert refused.detail == f"no permission for {node.path}"
        assert "runAsUser" in refused.fix
        node.path.chmod(0o600)
        assert until(lambda: read(node)) == ["p"]


def test_scrapes_of_the_daemon_do_not_ask_the_kubelet(node: Node) -> None:
    with (
        Kubelet(node.path, pod("chat-0", devices(PLAIN, f"{GPU[0]}::3"))) as kubelet,
        Daemon("--network", "--kubelet", "--kubelet-socket", str(node.path)) as daemon,
    ):
        until(lambda: daemon.value(METRIC, pod="chat-0", uuid=GPU[0]) == 1)
        for _ in range(50):
            daemon.get()
        assert kubelet.calls <= 2
        assert daemon.value("palegreen_source_up", source="kubelet") == 1


def test_a_kubelet_that_hangs_holds_up_neither_a_scrape_nor_another_source(node: Node) -> None:
    released = Event()
    with (
        Kubelet(node.path, before=released.wait) as kubelet,
        Daemon("--network", "--kubelet", "--kubelet-socket", str(node.path)) as daemon,
    ):
        until(lambda: kubelet.calls == 1)
        until(lambda: daemon.value("palegreen_source_up", source="network") == 1)
        assert daemon.value("palegreen_source_up", source="kubelet") == 0
        assert daemon.value(METRIC) is None
        released.set()


def checked(*arguments: str, path: Path | None = None) -> dict[str, object]:
    """The finding about the kubelet."""
    env = {"PYTHONPATH": os.pathsep.join(filter(None, [path and str(path), os.environ.get("PYTHONPATH")]))}
    done = run("check", "--json", "--no-nvml", "--listen-address", "127.0.0.1:0", *arguments, env=env)
    return next(found for found in json.loads(done.stdout) if found["check"] == "kubelet")


@pytest.fixture
def without_grpc(tmp_path: Path) -> Path:
    """A folder that, first on the path, makes an environment without the extra."""
    package = tmp_path / "path" / "grpc"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'grpc'\", name='grpc')\n")
    return package.parent


def test_check_says_that_a_kubelet_answers(node: Node) -> None:
    with Kubelet(node.path, pod("p", devices(PLAIN, GPU[0]))):
        found = checked("--kubelet-socket", str(node.path))
    assert (found["ok"], found["detail"]) == (True, f"GPUs of containers: 1 held ({node.path})")


def test_check_takes_a_node_without_kubernetes_for_what_it_is() -> None:
    if Path("/var/lib/kubelet").exists():
        pytest.skip("this machine has a kubelet")
    found = checked()
    assert found["ok"] is True
    assert "not a node of Kubernetes" in str(found["detail"])


def test_check_says_where_a_socket_is_missing_that_was_asked_for(tmp_path: Path) -> None:
    found = checked("--kubelet-socket", str(tmp_path / "none.sock"))
    assert (found["ok"], found["detail"]) == (False, f"{tmp_path}/none.sock is not there")


def test_check_says_what_to_install_without_the_extra(node: Node, without_grpc: Path) -> None:
    found = checked("--kubelet-socket", str(node.path), path=without_grpc)
    assert found["ok"] is False
    assert found["fix"] == "pip install 'palegreen[kubelet]'"


def test_without_the_extra_the_daemon_shows_everything_else_and_says_once_what_to_install(
    node: Node, without_grpc: Path
) -> None:
    paths = os.pathsep.join(filter(None, [str(without_grpc), os.environ.get("PYTHONPATH")]))
    with Daemon("--network", "--kubelet", "--kubelet-socket", str(node.path), env={"PYTHONPATH": paths}) as daemon:
        until(lambda: daemon.value("palegreen_source_up", source="kubelet") == 0)
        until(lambda: daemon.value("palegreen_source_up", source="network") == 1)
        until(lambda: len([line for line in daemon.events("source.down") if "palegreen[kubelet]" in line]) == 1)


def test_grpc_is_loaded_only_where_there_is_a_kubelet_to_ask(node: Node) -> None:
    def loaded(daemon: Daemon) -> bool:
        return "cygrpc" in Path(f"/proc/{daemon.pid}/maps").read_text()

    with Kubelet(node.path, pod("p", devices(PLAIN, GPU[0]))):
        with Daemon("--network", "--kubelet", "--kubelet-socket", str(node.path)) as daemon:
            until(lambda: daemon.value(METRIC, pod="p") == 1)
            assert loaded(daemon)
        with Daemon("--network", "--no-kubelet", "--kubelet-socket", str(node.path)) as daemon:
            until(lambda: daemon.value("palegreen_source_up", source="network") == 1)
            assert not loaded(daemon)
            assert daemon.value("palegreen_source_up", source="kubelet") is None
