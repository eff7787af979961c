"""Whose the GPUs' processes are, over a /proc as each runtime makes it, and over this machine's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.samples import Sample
from support.cgroups import Kernel
from support.engine import samples, value
from support.host import Host
from support.waiting import until

from palegreen.exporter.attribution.cgroup import parse
from palegreen.exporter.attribution.owners import Owner, Owners
from palegreen.exporter.attribution.source import UsageSource
from palegreen.exporter.attribution.stalls import Stalled
from palegreen.exporter.check import Finding, findings
from palegreen.exporter.config import NodeConfig
from palegreen.exporter.nvml.usage import DeviceUse, ProcessUse
from palegreen.exporter.source import SourceError

GIB = 1 << 30
A, B = "a" * 64, "0123456789ab" + "c" * 52
UID = "1f0c7a2e-0d2b-4a8e-9b1c-5f2d3e4a5b6c"
UID_B = "9e8d7c6b-5a49-4382-9716-05f4e3d2c1b0"
UID_ = UID.replace("-", "_")
SLICES = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice"

V1 = """\
12:memory:{0}
11:cpu,cpuacct:{0}
10:devices:{0}
2:net_cls,net_prio:/
1:name=systemd:{0}
0::/system.slice/containerd.service
"""

LAYOUTS = [
    # path of version 2, container, pod, unit
    (f"{SLICES}/cri-containerd-{A}.scope", A, UID, ""),
    (f"{SLICES}/crio-{A}.scope", A, UID, ""),
    (f"{SLICES}/crio-{A}.scope/container", A, UID, ""),
    (f"{SLICES}/docker-{A}.scope", A, UID, ""),
    (f"/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{A}.scope", A, UID, ""),
    (f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{B[:32]}.slice/crio-{A}.scope", A, B[:32], ""),
    (f"/kubepods/burstable/pod{UID}/{A}", A, UID, ""),
    (f"/kubepods/pod{UID}/{A}", A, UID, ""),
    (f"/kubepods/besteffort/pod{UID}/crio-{A}", A, UID, ""),
    (f"/system.slice/containerd.service/kubepods-burstable-pod{UID_}.slice:cri-containerd:{A}", A, UID, ""),
    (f"/kubepods-besteffort-pod{UID_}.slice:cri-containerd:{A}", A, UID, ""),
    (f"{SLICES}/cri-containerd-{A}.scope/system.slice/nginx.service", A, UID, ""),
    (f"{SLICES}/cri-containerd-{A}.scope (deleted)", A, UID, ""),
    (f"/../../kubepods-besteffort-pod{UID_}.slice/cri-containerd-{A}.scope", A, UID, ""),
    (f"/../../../kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/crio-{A}.scope", A, UID, ""),
    (f"/../../pod{UID}/{A}", A, UID, ""),
    (f"/../cri-containerd-{A}.scope", A, "", ""),
    (f"/docker/{B}/kubelet/kubepods/burstable/pod{UID}/{A}", A, UID, ""),
    (f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID_}.slice/cri-containerd-{A}.scope", A, UID, ""),
    (f"/system.slice/docker-{A}.scope", A, "", ""),
    (f"/docker/{A}", A, "", ""),
    (f"/machine.slice/libpod-{A}.scope/container", A, "", ""),
    (f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope", A, "", ""),
    (f"/system.slice/crio-conmon-{A}.scope", "", "", f"crio-conmon-{A}.scope"),
    ("/system.slice/vllm.service", "", "", "vllm.service"),
    ("/system.slice/system-vllm.slice/vllm@0.service/worker", "", "", "vllm@0.service"),
    ("/user.slice/user-1000.slice/session-3.scope", "", "", "session-3.scope"),
    (
        "/user.slice/user-1000.slice/user@1000.service/app.slice/vllm.service",
        "", "", "user@1000.service/vllm.service",
    ),
    ("/user.slice/user-1000.slice/user@1000.service/init.scope", "", "", "user@1000.service/init.scope"),
    ("/", "", "", ""),
    ("/slurm/uid_1000/job_7", "", "", ""),
]  # fmt: skip


def found(text: str) -> tuple[str, str, str]:
    cgroup = parse(text)
    return cgroup.container, cgroup.pod, cgroup.unit


@pytest.mark.parametrize(("path", "container", "pod", "unit"), LAYOUTS)
def test_each_layout_gives_container_pod_or_unit(path: str, container: str, pod: str, unit: str) -> None:
    assert found(f"0::{path}\n") == (container, pod, unit), "version 2"
    assert found(f"3:cpu:{path}\n1:name=systemd:{path}\n0::/\n") == (container, pod, unit), "hybrid"


@pytest.mark.parametrize(("path", "container", "pod", "unit"), [layout for layout in LAYOUTS if layout[1]])
def test_in_version_1_a_container_counts_over_the_unit_of_its_engine(
    path: str, container: str, pod: str, unit: str
) -> None:
    assert found(V1.format(path)) == (container, pod, unit)
    assert parse(V1.format(path)).unified == "", "the engine's own cgroup is not the container's"


HEX = "0123456789abcdef"
ids = st.text(HEX, min_size=64, max_size=64)
uids = st.uuids().map(str)
words = st.from_regex(r"[a-z][a-z0-9_.@-]{0,20}", fullmatch=True).filter(lambda word: not word.startswith("pod"))


@given(
    identity=ids,
    uid=uids,
    qos=st.sampled_from(["", "burstable", "besteffort"]),
    runtime=st.sampled_from(["cri-containerd", "crio", "docker"]),
    systemd=st.booleans(),
    inside=st.lists(words, max_size=3),
    above=st.integers(0, 4),
    legacy=st.booleans(),
)
def test_any_pod_is_found_from_any_cgroup_namespace(
    identity: str,
    uid: str,
    qos: str,
    runtime: str,
    systemd: bool,
    inside: list[str],
    above: int,
    legacy: bool,
) -> None:
    if systemd:
        base = f"kubepods-{qos}" if qos else "kubepods"
        slices = ["kubepods.slice", *([f"{base}.slice"] if qos else []), f"{base}-pod{uid.replace('-', '_')}.slice"]
        whole = [*slices, f"{runtime}-{identity}.scope"]
    else:
        whole = ["kubepods", *([qos] if qos else []), f"pod{uid}", identity]
    below = whole[min(above, len(whole) - 2) :]  # the pod's own folder is always seen, but from inside the pod
    path = "/" + "/".join([*([".."] * above), *below, *inside])
    cgroup = parse(V1.format(path) if legacy else f"0::{path}\n")
    assert (cgroup.container, cgroup.pod, cgroup.unit) == (identity, uid, "")
    assert (cgroup.cpu[1] if legacy else cgroup.unified) == path.removesuffix("".join(f"/{part}" for part in inside))


@given(st.text())
def test_whatever_stands_there_is_read_without_a_crash(text: str) -> None:
    parse(text)
    parse(f"0::/{text}\n1:name=systemd:{text}\n")


def test_a_container_cannot_pass_for_another_by_cgroups_it_makes_inside_its_own() -> None:
    forged = f"{SLICES}/cri-containerd-{A}.scope/kubepods/pod{UID_B}/{B}"
    assert found(f"0::{forged}\n") == (A, UID, "")
    assert found(f"0::/system.slice/vllm.service/{'evil.service'}\n")[2] == "vllm.service"


class Node:
    """A source over a host in a folder, GPUs that tests describe, and a clock they turn."""

    def __init__(self, root: Path, commands: bool = False) -> None:
        self.host = Host(root)
        self.uses: list[DeviceUse] = []
        self.now = 1_000_000.0
        clock = lambda: self.now  # noqa: E731
        self.owners = Owners(self.host.proc, self.host.logs, commands=commands, clock=clock)
        self.source = UsageSource(lambda: self.uses, self.owners, Stalled(self.host.cgroups), clock=clock)

    def gpu(self, *processes: tuple[int, int | None, float | None], gpu: int = 0, mig: str = "") -> None:
        """What the driver lists from now on for a GPU or a MIG device: pid, GiB, busy seconds."""
        listed = tuple(ProcessUse(pid, gib if gib is None else gib * GIB, busy) for pid, gib, busy in processes)
        others = [use for use in self.uses if (use.gpu, use.mig) != (str(gpu), mig)]
        self.uses = [*others, DeviceUse(f"GPU-{gpu}", str(gpu), mig, 80 * GIB, 0, listed)]

    def read(self, after: float = 1.0) -> list[Sample]:
        self.now += after
        return samples(self.source.collect())


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def pods(node: Node) -> None:
    """Two pods, one container each, pids 11 and 12 of the first and 21 of the second."""
    node.host.pod("prod", "chat-0", UID, vllm=A)
    node.host.pod("prod", "embed-0", UID_B, tei=B)
    node.host.process(11, f"{SLICES}/cri-containerd-{A}.scope")
    node.host.process(12, f"{SLICES}/cri-containerd-{A}.scope")
    node.host.process(21, f"/kubepods/pod{UID_B}/{B}")


USED = "palegreen_container_gpu_memory_used_bytes"
BUSY = "palegreen_container_gpu_busy_seconds_total"
PEAK = "palegreen_container_gpu_memory_peak_bytes"
PEAK_1H = "palegreen_container_gpu_memory_peak_1h_bytes"
COUNT = "palegreen_container_gpu_processes"


def test_two_pods_that_share_a_gpu_get_different_numbers(node: Node) -> None:
    pods(node)
    node.gpu((11, 30, 5.0), (12, 10, 1.5), (21, 4, 0.25))
    seen = node.read()
    chat, embed = {"namespace": "prod", "pod": "chat-0", "container": "vllm"}, {"pod": "embed-0", "container": "tei"}
    assert (value(seen, USED, **chat), value(seen, USED, **embed)) == (40 * GIB, 4 * GIB)
    assert (value(seen, BUSY, **chat), value(seen, BUSY, **embed)) == (6.5, 0.25)
    assert (value(seen, COUNT, **chat), value(seen, COUNT, **embed)) == (2, 1)
    assert {s.labels["container_id"] for s in seen if s.name == USED} == {""}, "named containers need no id"


def test_with_mps_each_client_counts_for_its_own_pod_and_the_server_for_its_unit(node: Node) -> None:
    pods(node)
    node.host.process(9, "/system.slice/nvidia-mps.service", command="nvidia-cuda-mps-server")
    node.gpu((9, 1, 0.0), (11, 20, 2.0), (21, 8, 7.0))
    seen = node.read()
    used = {(s.labels["pod"], s.labels["unit"]): s.value / GIB for s in seen if s.name == USED}
    assert used == {("", "nvidia-mps.service"): 1, ("chat-0", ""): 20, ("embed-0", ""): 8}


def test_on_mig_each_device_has_its_own_and_time_that_no_driver_tells_is_absent(node: Node) -> None:
    pods(node)
    node.gpu((11, 20, None), mig="MIG-1")
    node.gpu((12, 3, None), (21, 5, None), mig="MIG-2")
    seen = node.read()
    assert value(seen, USED, mig="MIG-1", pod="chat-0") == 20 * GIB
    assert value(seen, USED, mig="MIG-2", pod="chat-0") == 3 * GIB
    assert value(seen, USED, mig="MIG-2", pod="embed-0") == 5 * GIB
    assert not [s for s in seen if s.name == BUSY]


def test_a_killed_pod_leaves_no_series_and_the_new_one_starts_from_nothing(node: Node) -> None:
    pods(node)
    node.gpu((11, 40, 100.0), (21, 4, 1.0))
    node.read()
    node.host.end(11)
    node.gpu((21, 4, 1.5))
    seen = node.read()
    assert not [s for s in seen if "chat-0" in s.labels.values()]
    assert value(seen, BUSY, pod="embed-0") == 1.5
    node.host.process(11, f"{SLICES}/cri-containerd-{A}.scope", started=2000)
    node.gpu((21, 4, 1.5), (11, 2, 0.5))
    seen = node.read()
    assert value(seen, BUSY, pod="chat-0") == 0.5
    assert value(seen, PEAK, pod="chat-0") == 2 * GIB


def test_a_container_restarted_under_the_same_name_starts_from_nothing_even_between_two_readings(node: Node) -> None:
    pods(node)
    node.gpu((11, 40, 100.0))
    node.read()
    node.host.end(11)
    node.host.remove_pod("chat-0")
    again = "d" * 64
    node.host.pod("prod", "chat-0", UID, vllm=again)
    node.host.process(31, f"{SLICES}/cri-containerd-{again}.scope", started=3000)
    node.gpu((31, 2, 0.5))
    seen = node.read(after=6.0)
    assert value(seen, BUSY, pod="chat-0", container="vllm") == 0.5
    assert value(seen, PEAK, pod="chat-0", container="vllm") == 2 * GIB


def test_busy_time_never_falls_while_processes_of_a_container_come_and_go(node: Node) -> None:
    pods(node)
    node.gpu((11, 1, 10.0), (12, 1, 5.0))
    assert value(node.read(), BUSY, pod="chat-0") == 15
    node.gpu((11, 1, 11.0))
    assert value(node.read(), BUSY, pod="chat-0") == 16
    node.gpu((11, 1, 11.5), (12, 1, 0.25))
    assert value(node.read(), BUSY, pod="chat-0") == 16.75
    node.gpu((11, 1, 0.5), (12, 1, 0.25))  # the driver has counted anew
    assert value(node.read(), BUSY, pod="chat-0") == 17.25
    node.gpu((11, 1, None), (12, 1, None))  # once it does not tell
    assert value(node.read(), BUSY, pod="chat-0") == 17.25
    node.gpu((11, 1, 1.5), (12, 1, 0.25))
    assert value(node.read(), BUSY, pod="chat-0") == 18.25
    node.gpu((11, 1, 1.5))
    node.read()
    node.gpu((11, 1, 1.5), (12, 1, 2.0))  # another process by now, with more than the old one had
    assert value(node.read(), BUSY, pod="chat-0") == 20.25


def test_a_gpu_that_does_not_answer_for_a_while_goes_on_where_it_was(node: Node) -> None:
    pods(node)
    node.gpu((11, 9, 10.0), (12, 1, 3.0))
    node.read()
    node.gpu((11, 9, 10.0))
    node.read()
    uses, node.uses = node.uses, []
    assert node.read() == []
    node.uses = uses
    assert value(node.read(), BUSY, pod="chat-0") == 13


def test_a_pid_that_is_used_again_is_its_new_owners_alone(node: Node) -> None:
    pods(node)
    node.gpu((11, 40, 100.0))
    node.read()
    node.host.end(11)
    node.host.process(11, f"/kubepods/pod{UID_B}/{B}", started=5000)
    node.gpu((11, 4, 100.5))
    seen = node.read()
    assert value(seen, USED, pod="embed-0") == 4 * GIB
    assert value(seen, BUSY, pod="embed-0") == 0.5, "not what the old process had computed"
    assert not [s for s in seen if "chat-0" in s.labels.values()]
    assert value(seen, "palegreen_gpu_process_memory_peak_bytes", pid="11") == 4 * GIB


def test_high_water_marks_hold_since_the_start_and_for_an_hour(node: Node) -> None:
    pods(node)
    node.gpu((11, 2, 0.0))
    node.read()
    node.gpu((11, 40, 0.0))
    node.read()
    node.gpu((11, 2, 0.0))
    seen = node.read()
    assert [value(seen, name, pod="chat-0") for name in (USED, PEAK, PEAK_1H)] == [2 * GIB, 40 * GIB, 40 * GIB]
    for _ in range(58):
        seen = node.read(after=60)
    assert value(seen, PEAK_1H, pod="chat-0") == 40 * GIB
    for _ in range(3):
        seen = node.read(after=60)
    assert [value(seen, name, pod="chat-0") for name in (PEAK, PEAK_1H)] == [40 * GIB, 2 * GIB]
    assert value(seen, "palegreen_gpu_process_memory_peak_bytes", pid="11") == 40 * GIB
    node.gpu((11, 1, 0.0))
    assert value(node.read(after=3700), PEAK_1H, pod="chat-0") == GIB, "nothing was read for over an hour"


def test_memory_that_the_driver_does_not_tell_is_absent_and_not_zero(node: Node) -> None:
    pods(node)
    node.gpu((11, 3, 0.0), (12, None, 0.0), (21, 4, 0.0))
    seen = node.read()
    assert value(seen, COUNT, pod="chat-0") == 2
    assert [value(seen, name, pod="chat-0") for name in (USED, PEAK, PEAK_1H)] == [None, None, None]
    assert value(seen, USED, pod="embed-0") == 4 * GIB
    assert value(seen, "palegreen_gpu_process_memory_peak_bytes", pid="12") is None


UNATTRIBUTED = "palegreen_gpu_processes_unattributed"


def test_processes_whose_owner_cannot_be_told_are_counted_by_reason(node: Node) -> None:
    pods(node)
    (node.host.proc / "12" / "stat").write_text("12 (python3) S")
    node.gpu((11, 1, 0.0), (12, 1, 0.0), (404, 1, 0.0))
    seen = node.read()
    assert value(seen, UNATTRIBUTED, reason="not_found") == 1
    assert value(seen, UNATTRIBUTED, reason="unreadable") == 1
    assert value(seen, COUNT, pod="chat-0") == 1
    assert value(seen, "palegreen_gpu_process_memory_peak_bytes", pid="404") == GIB


def test_a_cgroup_that_cannot_be_read_is_unreadable_and_not_missing(node: Node) -> None:
    pods(node)
    (node.host.proc / "11" / "cgroup").unlink()
    (node.host.proc / "11" / "cgroup").mkdir()
    node.gpu((11, 1, 0.0), (21, 1, 0.0))
    seen = node.read()
    assert (value(seen, UNATTRIBUTED, reason="unreadable"), value(seen, UNATTRIBUTED, reason="not_found")) == (1, 0)


def test_when_no_owner_at_all_can_be_told_the_source_says_what_to_do(node: Node) -> None:
    node.gpu((404, 1, 0.0))
    assert value(node.read(), UNATTRIBUTED, reason="not_found") == 1, "a process that has just ended is no trouble"
    with pytest.raises(SourceError, match=r"owner of none of 1 GPU processes .* \(hostPID\)") as refused:
        node.read(after=5.0)
    assert value(samples(refused.value.readings), UNATTRIBUTED, reason="not_found") == 1


def test_owners_that_cannot_be_told_beside_one_that_can_are_no_failure(node: Node) -> None:
    pods(node)
    node.gpu((404, 1, 0.0), (11, 1, 0.0))
    node.read()
    assert value(node.read(after=60), COUNT, pod="chat-0") == 1


def test_without_log_folders_two_containers_stay_apart_by_their_ids_and_a_line_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = Node(tmp_path)
    (node.host.logs / "containers").rmdir()
    (node.host.logs / "pods").rmdir()
    node.host.process(11, f"{SLICES}/cri-containerd-{A}.scope")
    node.host.process(21, f"{SLICES}/cri-containerd-{B}.scope")
    node.gpu((11, 1, 0.0), (21, 2, 0.0))
    for _ in range(3):
        seen = node.read(after=10)
    assert {s.labels["container_id"]: s.value / GIB for s in seen if s.name == USED} == {A[:12]: 1, B[:12]: 2}
    assert {s.labels["pod"] for s in seen if s.name == USED} == {""}
    said = [line for line in capsys.readouterr().out.splitlines() if "attribution.unnamed" in line]
    assert len(said) == 1
    assert "containers: No such file or directory" in said[0]


def test_a_name_that_comes_late_is_found(node: Node) -> None:
    node.host.process(11, f"{SLICES}/cri-containerd-{A}.scope")
    node.gpu((11, 1, 0.0))
    assert value(node.read(), USED, container_id=A[:12]) == GIB
    node.host.pod("prod", "chat-0", UID, vllm=A)
    seen = node.read(after=6)
    assert value(seen, USED, pod="chat-0", container="vllm", container_id="") == GIB
    assert value(seen, USED, container_id=A[:12]) is None


def test_a_pod_known_by_its_log_folder_alone_gives_the_container_only_when_there_is_one(node: Node) -> None:
    pods(node)
    for link in (node.host.logs / "containers").iterdir():
        link.unlink()
    (node.host.logs / "pods" / f"prod_embed-0_{UID_B}" / "sidecar").mkdir()
    node.gpu((11, 1, 0.0), (21, 2, 0.0))
    seen = node.read()
    assert value(seen, USED, namespace="prod", pod="chat-0", container="vllm", container_id="") == GIB
    assert value(seen, USED, namespace="prod", pod="embed-0", container="", container_id=B[:12]) == 2 * GIB


def test_names_that_are_none_of_the_kubelets_are_passed_over(node: Node) -> None:
    for name in ("x", f"a_b_c-{A}.log.bak", f"a_b-{A}.log", f"../a_b_c-{A}.log".replace("/", ""), f"A\n_b_c-{A}.log"):
        (node.host.logs / "containers" / name).touch()
    (node.host.logs / "pods" / "a_b").mkdir()
    node.host.process(11, f"{SLICES}/cri-containerd-{A}.scope")
    assert node.owners.of(11) == Owner(container_id=A[:12])


def test_a_bare_process_shows_its_command_only_when_that_is_asked_for(tmp_path: Path) -> None:
    shown = {}
    for commands in (False, True):
        node = Node(tmp_path / str(commands), commands)
        node.host.process(11, "/", command='a) "b\\ S 1')
        node.host.process(12, "/user.slice/user-1000.slice/session-3.scope")
        assert node.owners.process(11).started == 1000, "whatever the command is called"
        node.gpu((11, 1, 0.0), (12, 1, 0.0))
        shown[commands] = {s.labels["unit"] for s in node.read() if s.name == USED}
    assert shown == {False: {"", "session-3.scope"}, True: {'a) "b\\ S 1', "session-3.scope"}}


def test_hostile_text_in_a_cgroup_path_stays_one_label(node: Node) -> None:
    node.host.process(11, '/system.slice/a"} 1\\\udcff\x85b.service')
    node.gpu((11, 1, 0.0))
    assert [s.labels["unit"] for s in node.read() if s.name == USED] == ['a"} 1\\\ufffd\x85b.service']


PRESSURE = "some avg10=0.00 avg60=0.00 avg300=0.00 total={}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total={}\n"
WAITED = "palegreen_container_pressure_seconds_total"
THROTTLED = "palegreen_container_cpu_throttled_seconds_total"


@pytest.mark.parametrize(
    ("seen_as", "lies_at"),
    [
        (f"{SLICES}/cri-containerd-{A}.scope", f"{SLICES}/cri-containerd-{A}.scope"),
        (f"{SLICES}/cri-containerd-{A}.scope", f"/unified{SLICES}/cri-containerd-{A}.scope"),
        (f"{SLICES}/crio-{A}.scope/container", f"{SLICES}/crio-{A}.scope"),
        (f"/../../kubepods-burstable-pod{UID_}.slice/crio-{A}.scope", f"{SLICES}/crio-{A}.scope"),
        (
            f"/../../../kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/crio-{A}.scope",
            f"{SLICES}/crio-{A}.scope",
        ),
        (f"/../../pod{UID}/{A}", f"/kubepods/pod{UID}/{A}"),
        (f"/../../pod{UID}/{A}", f"/kubepods/burstable/pod{UID}/{A}"),
        (f"/../../../besteffort/pod{UID}/{A}", f"/kubepods/besteffort/pod{UID}/{A}"),
        (f"/../docker-{A}.scope", f"/system.slice/docker-{A}.scope"),
        (f"/../{A}", f"/docker/{A}"),
    ],
)
def test_pressure_and_throttling_of_a_container_are_shown_from_any_cgroup_namespace(
    node: Node, seen_as: str, lies_at: str
) -> None:
    node.host.pod("prod", "chat-0", UID, vllm=A)  # its link is found by the id alone, too
    node.host.process(11, seen_as)
    node.host.cgroup(
        lies_at,
        cpu_pressure=PRESSURE.format(2_500_000, 500_000),
        memory_pressure=PRESSURE.format(0, 0),
        cpu_stat="usage_usec 9\nnr_periods 40\nnr_throttled 7\nthrottled_usec 1500000\n",
    )
    node.gpu((11, 1, 0.0), gpu=0)
    node.gpu((11, 1, 0.0), gpu=1)
    seen = node.read()
    assert value(seen, WAITED, pod="chat-0", resource="cpu", kind="some") == 2.5
    assert value(seen, WAITED, pod="chat-0", resource="cpu", kind="full") == 0.5
    assert value(seen, WAITED, pod="chat-0", resource="memory", kind="some") == 0
    assert value(seen, WAITED, pod="chat-0", resource="io", kind="some") is None, "the kernel has no such file"
    assert value(seen, THROTTLED, pod="chat-0", container="vllm") == 1.5
    assert value(seen, "palegreen_container_cpu_throttled_periods_total", pod="chat-0") == 7
    assert value(seen, "palegreen_container_cpu_periods_total", pod="chat-0") == 40


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_throttling_of_version_1_is_read_beside_no_pressure(node: Node, mount: str) -> None:
    path = f"/kubepods/burstable/pod{UID}/{A}"
    node.host.process(11, V1.format(path))
    node.host.cgroup(f"{mount}{path}", cpu_stat="nr_periods 10\nnr_throttled 2\nthrottled_time 3000000000\n")
    node.gpu((11, 1, 0.0))
    seen = node.read()
    assert value(seen, THROTTLED, container_id=A[:12]) == 3
    assert not [s for s in seen if s.name == WAITED]


def test_what_a_unit_waited_for_is_shown_too_and_goes_with_it(node: Node) -> None:
    node.host.process(11, "/system.slice/vllm.service/worker")
    node.host.cgroup("/system.slice/vllm.service", io_pressure=PRESSURE.format(1_000_000, 0), cpu_stat="usage_usec 1\n")
    node.gpu((11, 1, 0.0))
    seen = node.read()
    assert value(seen, WAITED, unit="vllm.service", resource="io", kind="some") == 1
    assert value(seen, THROTTLED, unit="vllm.service") is None, "no CPU controller, no throttling"
    node.host.cgroup("/system.slice/vllm.service", io_pressure=PRESSURE.format(4_000_000, 0))
    assert value(node.read(after=6), WAITED, unit="vllm.service", resource="io", kind="some") == 4
    node.gpu()
    assert not [s for s in node.read() if s.name.startswith("palegreen_container_")]


@pytest.mark.parametrize("text", ["", "some\n", "some total=x\n", "full total=-1\nsome total=\n", "\x00" * 9000])
def test_pressure_files_that_make_no_sense_are_absent(node: Node, text: str) -> None:
    node.host.process(11, "/system.slice/vllm.service")
    node.host.cgroup("/system.slice/vllm.service", cpu_pressure=text, cpu_stat=text.replace("total=", "nr_periods "))
    node.gpu((11, 1, 0.0))
    assert not [s for s in node.read() if s.name in (WAITED, THROTTLED)]


def test_processes_and_devices_that_come_and_go_are_not_remembered_for_ever(node: Node) -> None:
    for first in (1, 551):
        for pid in range(first, first + 550):
            node.host.process(pid, f"/system.slice/u{pid}.service")
        node.gpu(*((pid, 1, 0.0) for pid in range(first, first + 550)))
        assert node.source.collect().lines[USED].count("\n") == 550
    for number in range(300):
        node.uses = []
        node.gpu((1, 1, 0.0), mig=f"MIG-{number}")
        node.source.collect()
    assert len(node.owners._known) <= 1024  # the only way to see it but to measure memory
    assert len(node.source._accounts) <= 256


@pytest.fixture
def children() -> Iterator[Sequence[int]]:
    """Two processes of this machine."""
    running = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(2)]
    yield [child.pid for child in running]
    for child in running:
        child.communicate(b"\n", timeout=10)


def test_processes_of_this_machine_are_told_apart_from_those_that_have_ended(children: Sequence[int]) -> None:
    owners = Owners(commands=True)
    here = owners.process(os.getpid())
    born = [owners.process(pid) for pid in children]
    assert all(one.started >= here.started > 0 for one in born)
    assert {one.cgroup for one in born} == {here.cgroup} == {parse(Path("/proc/self/cgroup").read_text())}
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(10)
    assert owners.of(ended.pid) is None


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    """Real cgroups; needs the right to make some."""
    try:
        made = Kernel()
    except OSError as refused:
        pytest.skip(f"no cgroups can be made here: {refused}")
    with made:
        yield made


def test_real_processes_in_real_cgroups_are_told_apart_and_their_waits_are_the_kernels(
    kernel: Kernel, tmp_path: Path
) -> None:
    host = Host(tmp_path)
    host.pod("prod", "chat-0", UID, vllm=A)
    host.pod("prod", "embed-0", UID_B, tei=B)
    idle = kernel.start(f"pod{UID}/{A}", "input()")
    spinning = kernel.start(f"pod{UID_B}/crio-{B}", "while True: pass", cpu_percent=5)
    uses = [DeviceUse("GPU-0", "0", "", 1, 1, (ProcessUse(idle, GIB, 0.0), ProcessUse(spinning, 2 * GIB, 1.0)))]

    def read() -> list[Sample]:
        owners = Owners(Path("/proc"), host.logs)
        return samples(UsageSource(lambda: uses, owners, Stalled(Path("/sys/fs/cgroup"))).collect())

    seen = read()
    assert value(seen, USED, namespace="prod", pod="chat-0", container="vllm") == GIB
    assert value(seen, USED, namespace="prod", pod="embed-0", container="tei") == 2 * GIB
    for name, file in kernel.pressures(f"pod{UID}/{A}").items():
        total = next(line for line in file.splitlines() if line.startswith("some")).rpartition("=")[2]
        assert abs((value(seen, WAITED, pod="chat-0", resource=name, kind="some") or 0.0) - int(total) / 1e6) < 1
    if kernel.quota:
        throttled = until(lambda: value(read(), THROTTLED, pod="embed-0"), 20)
        assert throttled > 0
        assert value(read(), THROTTLED, pod="chat-0") == 0


def test_a_real_cgroup_namespace_hides_neither_container_nor_pod(kernel: Kernel) -> None:
    pid = kernel.start(f"kubepods-pod{UID_}.slice/cri-containerd-{A}.scope", "input()")
    inside = kernel.start(f"kubepods-pod{UID_B.replace('-', '_')}.slice/cri-containerd-{B}.scope", "input()")
    try:
        seen = kernel.seen_from(inside, pid)
    except OSError as refused:
        pytest.skip(f"no cgroup namespace can be made here: {refused}")
    assert f"::/../../kubepods-pod{UID_}" in seen
    assert found(seen) == (A, UID, "")


def preflight(host: Host) -> dict[str, Finding]:
    config = NodeConfig(listen_address="127.0.0.1:0", nvml_library=host.root / "none.so", host_root=host.root)
    return {finding.check: finding for finding in findings(config)}


def test_check_finds_everything_well_where_processes_names_and_cgroups_are_seen(node: Node) -> None:
    pods(node)
    node.host.process(1, "/init.scope")
    node.host.cgroup(f"{SLICES}/cri-containerd-{A}.scope")
    node.host.cgroup(f"/kubepods/pod{UID_B}/{B}")
    found = preflight(node.host)
    assert found["processes"].ok
    assert found["processes"].detail == f"4 processes in {node.host.proc}, all readable"
    assert (found["pod names"].ok, found["pod names"].detail) == (True, "2 pods, all named")
    assert found["cgroups"].ok


def test_check_says_what_is_missing_and_what_to_mount(node: Node) -> None:
    pods(node)
    node.host.remove_pod("chat-0")
    (node.host.logs / "containers").rename(node.host.logs / "elsewhere")
    namespace = node.host.proc / "self/ns"
    namespace.mkdir(parents=True)
    found = preflight(node.host)
    assert "those of other users are hidden" in found["processes"].detail
    assert "hidepid" in found["processes"].fix
    assert not found["pod names"].ok
    assert found["pod names"].detail.startswith("1 of 2 pods have no name (")
    assert "/var/log/containers" in found["pod names"].fix
    assert found["cgroups"].detail.startswith("2 of 2 containers are not in ")
    assert "/sys/fs/cgroup" in found["cgroups"].fix
    (namespace / "pid").symlink_to("pid:[4026532222]")
    assert "hostPID: true" in preflight(node.host)["processes"].fix


def test_a_pod_is_named_though_its_sandbox_has_no_log(node: Node) -> None:
    node.host.process(1, "/init.scope")
    pods(node)
    (node.host.logs / "pods").rename(node.host.logs / "elsewhere")
    for pid in (5, 10, 13, 99):
        node.host.process(pid, f"{SLICES}/cri-containerd-{'e' * 64}.scope", command="pause")
    assert preflight(node.host)["pod names"].ok


def test_check_says_when_there_is_no_proc(tmp_path: Path) -> None:
    config = NodeConfig(listen_address="127.0.0.1:0", nvml_library=tmp_path / "none.so", host_root=tmp_path)
    found = next(finding for finding in findings(config) if finding.check == "processes")
    assert not found.ok
    assert "--host-root" in found.fix
