"""One attached GPU: what is sampled, what is read once a second, and what adds up in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pynvml as nvml

from palegreen.exporter.nvml import families, gpm
from palegreen.exporter.nvml.binding import Calls, GpuGoneError, Library
from palegreen.exporter.nvml.gpm import Gpm
from palegreen.exporter.nvml.links import Links
from palegreen.exporter.nvml.mig import MigDevice, MigDevices
from palegreen.exporter.nvml.processes import Busy, processes
from palegreen.exporter.nvml.samples import Polled, Samples
from palegreen.exporter.nvml.totals import Totals
from palegreen.exporter.nvml.usage import DeviceUse, ProcessUse
from palegreen.runtime.exposition import NOTHING, Collected, Readings

_ACTIVITY = {
    gpm.SM: "palegreen_gpu_sm_active_seconds_total",
    gpm.OCCUPANCY: "palegreen_gpu_sm_occupancy_seconds_total",
    gpm.TENSOR: "palegreen_gpu_tensor_active_seconds_total",
    gpm.DRAM: "palegreen_gpu_dram_active_seconds_total",
}
_SLOW_EVERY = 5.0  # seconds
_BUSY = 0.5  # a GPU that computed for half of the time is held to its clock
_FRESH = 5.0  # seconds for which GPM may be silent
_ENERGY = "palegreen_gpu_energy_joules_total"
_TRAFFIC = {
    gpm.PCIE_TX: "palegreen_gpu_pcie_tx_bytes_total",
    gpm.PCIE_RX: "palegreen_gpu_pcie_rx_bytes_total",
}
_LOW = 0.5  # of the highest SM clock


@dataclass(frozen=True, slots=True)
class Identity:
    """A GPU's UUID and its index."""

    uuid: str
    gpu: str


class Gpu:
    """One attached GPU. Attaching, sampling and reading raise GpuGoneError when it does not answer."""

    def __init__(self, library: Library, index: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._library = library
        self._clock = clock
        self._calls = Calls(clock)
        try:
            self.handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError as failure:
            raise GpuGoneError(str(failure)) from None
        self.identity = Identity(self._calls(nvml.nvmlDeviceGetUUID, self.handle) or "", str(index))
        self._name = self._calls(nvml.nvmlDeviceGetName, self.handle) or ""
        pci = self._calls(nvml.nvmlDeviceGetPciInfo_v3, self.handle)
        self._pci = _text(pci.busId) if pci is not None else ""
        self._minor: int | None = self._calls(nvml.nvmlDeviceGetMinorNumber, self.handle)
        self._max_clocks = {
            domain: megahertz
            for domain, kind in families.CLOCKS
            if (megahertz := self._calls(nvml.nvmlDeviceGetMaxClockInfo, self.handle, kind)) is not None
        }
        self._mig = MigDevices(self._calls, self.handle)
        self._utilization = Samples(self.handle, nvml.NVML_GPU_UTILIZATION_SAMPLES, clock)
        self._polled = Polled(self.handle, clock)
        self._power = Samples(self.handle, nvml.NVML_TOTAL_POWER_SAMPLES, clock)
        self._gpm = Gpm(self.handle, clock=clock)
        self._busy = Busy(self.handle, clock)
        self._links = Links(self.handle)
        self._basis = ""
        self._counted: dict[str, float] = {}
        self._busy_before: tuple[float, float] | None = None
        self._read_at: float | None = None
        self._listed = False
        self._slow_at = float("-inf")
        self._slow_readings = NOTHING
        self._drained = False
        self.usage: tuple[DeviceUse, ...] = ()

    @property
    def must_be_polled(self) -> bool:
        """Whether something is lost between two readings: the driver keeps no samples, or counts no throttling.

        A driver that keeps them has at least the last two seconds (a hundred samples of 20 ms), so that taking them
        more often than they are published brings nothing.
        """
        return self._basis == "polling" or not self._counted

    def close(self) -> None:
        """Let go of what is kept in the library."""
        self._gpm.close()
        self._mig.close()

    def sample(self, totals: Totals) -> None:
        """What changes faster than it is published: utilisation and, where the driver does not count, throttling."""
        drained = self._utilization.drain()
        if drained is not None:
            self._basis = "samples"
            for at, percent in drained if self._drained else drained[-1:]:  # what was before the daemon is not its own
                totals.busy.add(at, percent / 100)
            for at, percent in drained:
                totals.minute.add(at, percent / 100)
            self._drained = True
        elif (percent_now := self._polled.percent()) is not None:
            self._basis = "polling"
            now = time.time()  # the clock of samples, which may come back
            totals.busy.add(now, percent_now / 100)
            totals.minute.add(now, percent_now / 100)
        else:
            self._basis = ""
        if not self._counted:
            self._look_at_reasons(totals)
        if _ENERGY not in totals.counted:
            for at, milliwatts in self._power.drain() or ():
                totals.power.add(at, milliwatts / 1000)

    def read(self, totals: Totals) -> Readings:
        """Everything this GPU tells, with what has added up."""
        now = self._clock()
        self._calls.answered = False
        whole = Collected(self.identity.uuid, self.identity.gpu, "")
        mode = self._calls(nvml.nvmlDeviceGetMigMode, self.handle)
        enabled = mode is not None and mode[0] == nvml.NVML_DEVICE_MIG_ENABLE
        self._info(whole, "" if mode is None else "enabled" if enabled else "disabled")
        memory = families.memory(self._calls, self.handle, whole)
        self._peak(whole, totals, "", now, memory)
        self._utilization_readings(whole, totals)
        families.media(self._calls, self.handle, whole)
        self._power_readings(whole, totals)
        families.temperature(self._calls, self.handle, whole)
        clocks = families.clocks(self._calls, self.handle, whole)
        self._counted = self._links.publish(whole, totals.counted)
        whole.include(self._slow(now))
        self._throttled(whole, totals)
        self._low_clock(whole, totals, now, clocks)
        if enabled:
            self.usage = tuple(self._device(whole, device, totals, now) for device in self._mig.devices(now))
            totals.keep_devices({device.mig for device in self.usage})
            self._mig.capacity(now, whole)
        else:
            self._activity(whole, "", self._gpm, totals, now)
            self._busy.drain(totals.minute.period() if self._basis == "samples" else None)
            used = processes(self._calls, self.handle, self._busy, whole)
            if used is None and self._listed:  # one listing that failed is not the end of all processes
                used, self._listed = self.usage[0].processes if self.usage else None, False
            else:
                self._listed = used is not None
            self.usage = self._use(memory, used or (), totals, clocks)
        if not self._calls.answered:
            raise GpuGoneError("it answers no call")
        return whole.readings()

    def _slow(self, now: float) -> Readings:
        """What changes seldom, or takes long to ask for; read every few seconds."""
        if now - self._slow_at >= _SLOW_EVERY:
            add = Collected(self.identity.uuid, self.identity.gpu, "")
            for domain, megahertz in self._max_clocks.items():
                add.add("palegreen_gpu_clock_max_hertz", megahertz * families.MEGA, domain)
            for family in (
                families.bar1, families.ecc, families.remapped_rows, families.pcie_link, families.modes
            ):  # fmt: skip
                family(self._calls, self.handle, add)
            self._links.nvlinks(add)
            self._slow_readings, self._slow_at = add.readings(), now
        return self._slow_readings

    def _info(self, add: Collected, mig_mode: str) -> None:
        library = self._library
        simulated = "true" if library.simulated else "false"
        versions = (library.driver_version, library.cuda_version)
        add.add("palegreen_gpu_info", 1, self._name, self._pci, *versions, mig_mode, simulated)

    def _use(
        self, memory: Any, used: tuple[ProcessUse, ...], totals: Totals, clocks: dict[str, int]
    ) -> tuple[DeviceUse, ...]:
        total, free = (memory.total, memory.free) if memory is not None else (0, 0)
        return (
            DeviceUse(
                *(self.identity.uuid, self.identity.gpu, "", total, free, used),
                busy_seconds=totals.busy.total if self._basis else None,
                sm_clock_hertz=float(clocks["sm"] * families.MEGA) if "sm" in clocks else None,
                minor=self._minor,
            ),
        )

    def _device(self, whole: Collected, device: MigDevice, totals: Totals, now: float) -> DeviceUse:
        part = Collected(self.identity.uuid, self.identity.gpu, device.uuid)
        part.add(
            "palegreen_gpu_mig_info", 1, device.profile, *map(_optional, (device.gpu_instance, device.compute_instance))
        )
        memory = families.memory(device.calls, device.handle, part)
        self._peak(part, totals, device.uuid, now, memory)
        if device.gpm is not None:
            self._activity(part, device.uuid, device.gpm, totals, now)
        used = processes(device.calls, device.handle, None, part) or ()
        whole.include(part.readings())
        total, free = (memory.total, memory.free) if memory is not None else (0, 0)
        return DeviceUse(
            *(self.identity.uuid, self.identity.gpu, device.uuid, total, free, used),
            minor=self._minor,
            gpu_instance=device.gpu_instance,
            compute_instance=device.compute_instance,
        )

    def _peak(self, add: Collected, totals: Totals, mig: str, now: float, memory: Any) -> None:
        if memory is not None:
            peak = totals.peaks[mig]
            peak.see(now, memory.used)
            add.add("palegreen_gpu_memory_peak_bytes", peak.ever)
            add.add("palegreen_gpu_memory_peak_1h_bytes", peak.last_hour)

    def _utilization_readings(self, add: Collected, totals: Totals) -> None:
        if (rates := self._calls(nvml.nvmlDeviceGetUtilizationRates, self.handle)) is not None:
            add.add("palegreen_gpu_utilization_ratio", rates.gpu / 100)
            add.add("palegreen_gpu_memory_controller_utilization_ratio", rates.memory / 100)
        if not self._basis:
            return
        add.add("palegreen_gpu_busy_seconds_total", totals.busy.total)
        add.add("palegreen_gpu_sampled_seconds_total", totals.busy.covered)
        add.add("palegreen_gpu_unsampled_seconds_total", totals.busy.unseen)
        for basis in ("samples", "polling"):
            add.add("palegreen_gpu_sampling", basis == self._basis, basis)
        if (period := totals.minute.period()) is not None:
            add.add("palegreen_gpu_sample_period_seconds", period)
        if (extremes := totals.minute.extremes()) is not None:
            add.add("palegreen_gpu_utilization_min_ratio", extremes[0])
            add.add("palegreen_gpu_utilization_max_ratio", extremes[1])

    def _power_readings(self, add: Collected, totals: Totals) -> None:
        if families.power(self._calls, self.handle, add):
            totals.counted.add(_ENERGY)
        elif _ENERGY not in totals.counted and totals.power.latest is not None:
            add.add(_ENERGY, totals.power.total)

    def _activity(self, add: Collected, mig: str, source: Gpm, totals: Totals, now: float) -> None:
        """Publish what GPM adds up to, while it is read: one that has stopped must not look like a GPU that idles."""
        sums = totals.activity[mig]
        for metric, increment in source.read().items():
            sums[metric].total += increment
            sums[metric].at = now
        fresh = {metric: each.total for metric, each in sums.items() if now - each.at <= _FRESH}
        for metric, name in _ACTIVITY.items():
            if metric in fresh:
                add.add(name, fresh[metric])
        if mig and gpm.GRAPHICS in fresh:
            add.add("palegreen_gpu_busy_seconds_total", fresh[gpm.GRAPHICS])
        for metric, name in _TRAFFIC.items():
            if not mig and metric in fresh and name not in totals.counted:
                add.add(name, fresh[metric])

    def _look_at_reasons(self, totals: Totals) -> None:
        mask = self._calls.first(
            (nvml.nvmlDeviceGetCurrentClocksEventReasons, self.handle),
            (nvml.nvmlDeviceGetCurrentClocksThrottleReasons, self.handle),
        )
        if mask is not None:
            totals.throttled.observe(self._clock(), mask)

    def _throttled(self, add: Collected, totals: Totals) -> None:
        """The driver's own counters where it has them, else the time between two looks that saw the reason."""
        self._look_at_reasons(totals)
        totals.counted |= self._counted.keys()
        seen = totals.throttled.seconds if totals.throttled.known else {}
        ours = {reason: seconds for reason, seconds in seen.items() if reason not in totals.counted}
        for reason, seconds in (ours | self._counted).items():
            add.add("palegreen_gpu_throttled_seconds_total", seconds, reason)

    def _low_clock(self, add: Collected, totals: Totals, now: float, clocks: dict[str, int]) -> None:
        """Time in which the GPU worked at less than half its clock, and no reason that the driver gives explains it."""
        before, self._busy_before = self._busy_before, (totals.busy.total, totals.busy.covered)
        elapsed, self._read_at = now - self._read_at if self._read_at is not None else 0.0, now
        most = self._max_clocks.get("sm")
        if not most or "sm" not in clocks or not totals.throttled.known or not self._basis:
            return
        if before is not None and totals.busy.covered > before[1]:
            busy = (totals.busy.total - before[0]) / (totals.busy.covered - before[1])
            explained = totals.throttled.mask & ~nvml.nvmlClocksEventReasonGpuIdle
            if busy > _BUSY and clocks["sm"] < _LOW * most and not explained:
                totals.clock_low += elapsed
        add.add("palegreen_gpu_clock_low_seconds_total", totals.clock_low)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _optional(value: int | None) -> str:
    return "" if value is None else str(value)
