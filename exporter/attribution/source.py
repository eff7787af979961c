"""Who uses each GPU, as a source: the driver's processes by their owners, and how those owners' cgroups wait."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

from palegreen.exporter.attribution.account import Account, Share
from palegreen.exporter.attribution.cgroup import Cgroup
from palegreen.exporter.attribution.owners import HiddenError, Owner, Owners, Process, Reason
from palegreen.exporter.attribution.stalls import Stalled, Stalls
from palegreen.exporter.nvml.usage import DeviceUse, ProcessUse
from palegreen.exporter.source import SourceError
from palegreen.runtime.exposition import Collected, Readings

_STALLS_EVERY = 5.0  # seconds; the kernel sums pressure over all CPUs at each reading
_PATIENCE = 5.0  # seconds; the driver still lists a process for a moment when it has ended
_MOST_DEVICES = 256  # MIG devices come and go, each with a UUID of its own
_REASONS: tuple[Reason, ...] = ("not_found", "unreadable")
_CAUSE = (
    "the owner of none of {count} GPU processes can be told from {proc}: "
    "run in the host's pid namespace (hostPID), and with a /proc that is not mounted with hidepid"
)


@dataclass(frozen=True, slots=True)
class _Waits:
    """What was read of a cgroup, and when."""

    cgroup: Cgroup
    at: float
    stalls: Stalls


class UsageSource:
    """Publishes what `usage` lists, which is asked every `interval` seconds; `clock` counts seconds."""

    name = "attribution"
    target = ""
    deadline = 3.0

    def __init__(
        self,
        usage: Callable[[], Sequence[DeviceUse]],
        owners: Owners,
        stalled: Stalled,
        interval: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.interval = interval
        self._usage = usage
        self._owners = owners
        self._stalled = stalled
        self._clock = clock
        self._accounts: dict[tuple[str, str, str], Account] = {}
        self._waits: dict[Owner, _Waits] = {}
        self._hidden: dict[int, float] = {}
        self._lock = Lock()

    def collect(self) -> Readings:
        """Each device's shares now; raises SourceError while not one process' owner can be told."""
        with self._lock:
            return self._collect()

    def close(self) -> None:
        """Nothing is held."""

    def describe(self) -> str:
        """How many owners there are."""
        return f"containers and units that use GPUs: {len(self._waits)}"

    def _collect(self) -> Readings:
        now = self._clock()
        collected = Collected()
        present: dict[Owner, Process] = {}
        hidden: set[int] = set()
        for use in self._usage():
            device = (use.uuid, use.gpu, use.mig)
            listed, reasons = self._known(use.processes)
            account = self._accounts.pop(device, None) or Account()
            self._accounts[device] = account
            account.update(now, listed)
            _publish(collected, device, account, reasons)
            for one, process in listed:
                if process is None:
                    hidden.add(one.pid)
                elif process.owner not in present or process.started > present[process.owner].started:
                    present[process.owner] = process
        for device in list(self._accounts)[:-_MOST_DEVICES]:
            del self._accounts[device]
        self._wait(now, collected, present)
        self._hidden = {pid: self._hidden.get(pid, now) for pid in hidden}
        lasting = sum(now - since >= _PATIENCE for since in self._hidden.values())
        if lasting and not present:
            raise SourceError(_CAUSE.format(count=lasting, proc=self._owners.proc), collected.readings())
        return collected.readings()

    def _known(self, uses: Sequence[ProcessUse]) -> tuple[list[tuple[ProcessUse, Process | None]], Counter[Reason]]:
        listed: list[tuple[ProcessUse, Process | None]] = []
        reasons: Counter[Reason] = Counter()
        for use in uses:
            try:
                listed.append((use, self._owners.process(use.pid)))
            except HiddenError as hidden:
                listed.append((use, None))
                reasons[hidden.reason] += 1
        return listed, reasons

    def _wait(self, now: float, collected: Collected, present: dict[Owner, Process]) -> None:
        kept: dict[Owner, _Waits] = {}
        for owner, process in present.items():
            waits = self._waits.get(owner)
            if waits is None or waits.cgroup != process.cgroup or now - waits.at >= _STALLS_EVERY:
                waits = _Waits(process.cgroup, now, self._stalled.read(process.cgroup))
            kept[owner] = waits
            _publish_waits(collected, owner, waits.stalls)
        self._waits = kept


def _publish(collected: Collected, device: tuple[str, str, str], account: Account, reasons: Counter[Reason]) -> None:
    for owner, share in account.shares.items():
        for name, value in _values(share):
            if value is not None:
                collected.add(name, value, *device, *owner)
    for pid, highest in account.peaks.items():
        collected.add("palegreen_gpu_process_memory_peak_bytes", highest.ever, *device, str(pid))
        collected.add("palegreen_gpu_process_memory_peak_1h_bytes", highest.last_hour, *device, str(pid))
    for reason in _REASONS:
        collected.add("palegreen_gpu_processes_unattributed", reasons[reason], *device, reason)


def _values(share: Share) -> tuple[tuple[str, float | None], ...]:
    peak = share.peak
    return (
        ("palegreen_container_gpu_processes", share.processes),
        ("palegreen_container_gpu_memory_used_bytes", share.memory),
        ("palegreen_container_gpu_busy_seconds_total", share.busy),
        ("palegreen_container_gpu_memory_peak_bytes", peak.ever if peak else None),
        ("palegreen_container_gpu_memory_peak_1h_bytes", peak.last_hour if peak else None),
    )


def _publish_waits(collected: Collected, owner: Owner, stalls: Stalls) -> None:
    for (resource, kind), seconds in stalls.pressure.items():
        collected.add("palegreen_container_pressure_seconds_total", seconds, *owner, resource, kind)
    if (throttling := stalls.throttling) is not None:
        collected.add("palegreen_container_cpu_periods_total", throttling.periods, *owner)
        collected.add("palegreen_container_cpu_throttled_periods_total", throttling.throttled_periods, *owner)
        collected.add("palegreen_container_cpu_throttled_seconds_total", throttling.throttled_seconds, *owner)
