"""Which GPUs an engine computes on, so that its series and theirs can be joined. Nothing is guessed.

- An engine whose `namespace` and `pod` are given has the GPUs that a process of the pod is on, and those the kubelet
  has given to the pod.
- Any other at an address of this machine has the GPUs of the process that listens there and of its descendants. Where
  none of these is on a GPU (workers that a cluster manager has started), those of processes in the same container or
  service, unless another engine is there too.
- Of all others they are not known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Lock
from typing import NamedTuple
from urllib.parse import urlsplit

from palegreen.exporter.attribution.owners import HiddenError, Owners
from palegreen.exporter.attribution.sockets import Sockets
from palegreen.exporter.kernelfile import content, parent
from palegreen.exporter.nvml.usage import DeviceUse

_DEEPEST = 64  # ancestors of a process that are looked at


class GpuName(NamedTuple):
    """UUIDs of a GPU and of a MIG device on it, "" for the whole GPU."""

    uuid: str
    mig: str


class Holding(NamedTuple):
    """A GPU that the kubelet has given to a pod."""

    namespace: str
    pod: str
    gpu: GpuName


class Replica(NamedTuple):
    """An engine as it is configured."""

    url: str
    namespace: str = ""
    pod: str = ""


class EngineGpus:
    """Joins engines to GPUs by what the driver and the kubelet last said. Thread-safe.

    `usage` lists processes by device, `held` what the kubelet has given out. `configured` are all engines of the
    daemon, which must be known to tell apart two of them in one container; `clock` counts seconds.
    """

    def __init__(
        self,
        usage: Callable[[], Sequence[DeviceUse]],
        held: Callable[[], Sequence[Holding]],
        owners: Owners,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.configured: tuple[Replica, ...] = ()
        self._usage = usage
        self._held = held
        self._owners = owners
        self._proc = str(owners.proc)
        self._sockets = Sockets(owners.proc, clock)
        self._lock = Lock()

    def of(self, replica: Replica) -> tuple[GpuName, ...]:
        """The engine's GPUs in order; empty where they are not known."""
        with self._lock:
            used = [(process.pid, GpuName(use.uuid, use.mig)) for use in self._usage() for process in use.processes]
            if replica.pod:
                return tuple(sorted({*self._of_pod(replica, used), *self._given(replica)}))
            return tuple(sorted(set(self._of_port(replica, used))))

    def _given(self, replica: Replica) -> Iterator[GpuName]:
        for namespace, pod, gpu in self._held():
            if (namespace, pod) == (replica.namespace, replica.pod) and gpu.uuid:
                yield gpu

    def _of_pod(self, replica: Replica, used: Iterable[tuple[int, GpuName]]) -> Iterator[GpuName]:
        for pid, gpu in used:
            owner = self._owners.of(pid)
            if owner is not None and (owner.namespace, owner.pod) == (replica.namespace, replica.pod):
                yield gpu

    def _of_port(self, replica: Replica, used: Sequence[tuple[int, GpuName]]) -> list[GpuName]:
        holders = self._holders(replica) if used else frozenset()
        if not holders:
            return []
        lines = {pid: self._line(pid) for pid, _ in used}
        below = [gpu for pid, gpu in used if not holders.isdisjoint(lines[pid])]
        if below:
            return below
        homes = {home for pid in holders if (home := self._home(pid))}
        if not homes:
            return []
        others = {pid for other in self.configured if other.url != replica.url for pid in self._holders(other)}
        if any(self._home(pid) in homes for pid in others - holders):
            return []  # two engines in one place, and nothing that tells whose the processes are
        return [gpu for pid, gpu in used if self._home(pid) in homes]

    def _holders(self, replica: Replica) -> frozenset[int]:
        parts = urlsplit(replica.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return self._sockets.holders(parts.hostname or "", port)

    def _line(self, pid: int) -> set[int]:
        """The process and its ancestors, but for the first process: it starts and adopts what is nobody's."""
        line: set[int] = {pid}
        while len(line) < _DEEPEST:
            try:
                pid = parent(content(f"{self._proc}/{pid}/stat"))
            except (OSError, ValueError):
                break
            if pid <= 1 or pid in line:
                break
            line.add(pid)
        return line

    def _home(self, pid: int) -> str:
        """The container, or the cgroup of the service, that a process is in alone with those of its kind; else "".

        A session or scope is none: a person starts several things in one.
        """
        try:
            cgroup = self._owners.process(pid).cgroup
            if cgroup.container:
                return cgroup.container
            manager, _, unit = cgroup.unit.rpartition("/")
            if unit.endswith(".service") and (manager or not unit.startswith("user@")):
                return content(f"{self._proc}/{pid}/cgroup")
        except (HiddenError, OSError):
            pass
        return ""
