"""PyTorch's allocators of this node's serving processes, from the files their probes write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import structlog

from palegreen.exporter.allocator.files import REASONS, Believed, Files
from palegreen.exporter.allocator.record import Device
from palegreen.exporter.nvml.usage import DeviceUse
from palegreen.exporter.source import SourceError
from palegreen.runtime.exposition import Collected, Readings

log = structlog.get_logger()

_GAUGES = ("allocated", "active", "reserved", "requested", "inactive_split", "releasable")
_KINDS = ("split", "external", "rounding")


def nobody(_pid: int) -> tuple[str, str, str]:
    """Owner of a process where nothing is known of pods."""
    return "", "", ""


class AllocatorSource:
    """All files of a folder. `usage` gives the node's GPUs and their processes, nothing while they are not known;
    `owner_of` the namespace, pod and container of a pid. `interval` and `deadline` are in seconds.
    """

    name = "allocator"
    target = ""

    def __init__(
        self,
        files: Files,
        usage: Callable[[], Sequence[DeviceUse]] = tuple,
        owner_of: Callable[[int], tuple[str, str, str]] = nobody,
        interval: float = 5.0,
        deadline: float = 5.0,
    ) -> None:
        self.interval = interval
        self.deadline = deadline
        self._files = files
        self._usage = usage
        self._owner_of = owner_of
        self._gpus: dict[str, DeviceUse] = {}  # ever seen: one that hangs is still the node's
        self._refused: Counter[str] = Counter()
        self._refused_last: Counter[str] = Counter()
        self._processes = 0

    def collect(self) -> Readings:
        """One series set a process; raises SourceError where the folder is missing or no writer can be seen."""
        believed, refused = self._files.read()
        usage = self._usage()
        self._gpus |= {_bare(use.mig or use.uuid): use for use in usage}
        collected = Collected()
        self._processes = 0
        for told in believed:
            reason = self._add(collected, told, usage)
            if reason:
                refused[reason] += 1
            else:
                self._processes += 1
        self._count(refused)
        for reason in REASONS:
            collected.add("palegreen_allocator_files_refused_total", self._refused[reason], reason)
        if refused["hidden"] and not believed:
            raise SourceError(f"{refused['hidden']} files: {REASONS['hidden']}", collected.readings())
        return collected.readings()

    def close(self) -> None:
        """Nothing is held between two readings."""

    def describe(self) -> str:
        """How many processes are believed."""
        return f"PyTorch allocators: {self._processes} processes"

    def _add(self, collected: Collected, told: Believed, usage: Sequence[DeviceUse]) -> str:
        """Add what a process says, or nothing of it; the reason why not, empty if it was added."""
        placed: list[tuple[Device, str, str]] = []
        for device in told.record.devices:
            place = self._place(device, told, usage)
            if place is None:
                return "gpu"
            gpu, mig, total = place
            if total is not None and device.reserved > total:
                return "impossible"
            if any((gpu, mig) == other[1:] for other in placed):
                return "impossible"
            placed.append((device, gpu, mig))
        own = Collected(*self._owner_of(told.pid), str(told.pid))
        record = told.record
        own.add("palegreen_allocator_info", 1, record.backend)
        for step, seconds in (("stats", record.stats_seconds), ("snapshot", record.snapshot_seconds)):
            if seconds is not None:
                own.add("palegreen_allocator_probe_duration_seconds", seconds, step)
        if record.snapshot_age is not None:
            own.add("palegreen_allocator_snapshot_age_seconds", record.snapshot_age)
        for device, gpu, mig in placed:
            _device(own, device, gpu, mig)
            outside = _outside(device, told.pid, gpu, mig, usage)
            if outside is not None:
                own.add("palegreen_allocator_outside_bytes", outside, gpu, mig)
        collected.include(own.readings())
        return ""

    def _place(self, device: Device, told: Believed, usage: Sequence[DeviceUse]) -> tuple[str, str, int | None] | None:
        """UUIDs of the GPU and the MIG device and their memory in bytes; None if this node has no such GPU.

        CUDA gives a process on a MIG device either that device's UUID or its GPU's: then NVML says which one it uses.
        """
        if not self._gpus:
            return (f"GPU-{device.uuid}", "", None) if device.uuid else None
        used = [use for use in usage if any(process.pid == told.pid for process in use.processes)]
        if not device.uuid:  # an old PyTorch: certain only where there is nothing to confuse
            here = used if len(used) == len(told.record.devices) == 1 else []
        else:
            here = [use for use in used if device.uuid in (_bare(use.uuid), _bare(use.mig))]
            here.sort(key=lambda use: not use.mig)
        use = here[0] if here else self._gpus.get(device.uuid)
        if use is None:  # the GPU of MIG devices, whose processes the driver does not tell
            return next(
                ((known.uuid, "", None) for known in self._gpus.values() if _bare(known.uuid) == device.uuid), None
            )
        return use.uuid, use.mig, use.total_bytes

    def _count(self, refused: Counter[str]) -> None:
        """Add up, and one line for each reason that was not there at the last reading."""
        self._refused.update(refused)
        for reason in sorted(refused.keys() - self._refused_last.keys()):
            if reason != "unlocked":  # a process that crashed; it is in the counter
                log.warning("allocator.refused", reason=reason, files=refused[reason], cause=REASONS[reason])
        self._refused_last = refused


def _device(collected: Collected, device: Device, gpu: str, mig: str) -> None:
    for name in _GAUGES:
        value = getattr(device, name)
        if value is not None:
            collected.add(f"palegreen_allocator_{name}_bytes", value, gpu, mig)
    if device.retries is not None:
        collected.add("palegreen_allocator_retries_total", device.retries, gpu, mig)
    if device.ooms is not None:
        collected.add("palegreen_allocator_ooms_total", device.ooms, gpu, mig)
    snapshot = device.snapshot
    if snapshot is None:
        return
    for kind in _KINDS:
        ratio = getattr(snapshot, kind)
        if ratio is not None:
            collected.add("palegreen_allocator_fragmentation_ratio", ratio, gpu, mig, kind)
    if snapshot.free:
        collected.add("palegreen_allocator_largest_free_block_bytes", snapshot.largest, gpu, mig)
    collected.add("palegreen_allocator_private_pools_bytes", snapshot.private, gpu, mig)
    collected.add("palegreen_allocator_expandable_segments_bytes", snapshot.expandable, gpu, mig)


def _outside(device: Device, pid: int, gpu: str, mig: str, usage: Sequence[DeviceUse]) -> int | None:
    """Bytes the process holds beside its allocator: context, NCCL, cuBLAS.

    None where the driver does not tell, or where the two readings, of different moments, make no sense together.
    """
    for use in usage:
        if (use.uuid, use.mig) == (gpu, mig):
            for process in use.processes:
                if process.pid == pid and process.memory_bytes is not None:
                    outside = process.memory_bytes - device.reserved
                    return outside if outside >= 0 else None
    return None


def _bare(uuid: str) -> str:
    """A UUID without the prefixes by which NVML tells GPUs and MIG devices apart; CUDA leaves them out."""
    return uuid.removeprefix("GPU-").removeprefix("MIG-").lower()
