"""What is read of one GPU: each family is one small function over its handle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pynvml as nvml

from palegreen.exporter.nvml.binding import Calls, GpuGoneError, Library
from palegreen.runtime.exposition import Collected, Readings

_MEGA = 1_000_000
_CLOCKS = (
    ("graphics", nvml.NVML_CLOCK_GRAPHICS),
    ("sm", nvml.NVML_CLOCK_SM),
    ("memory", nvml.NVML_CLOCK_MEM),
    ("video", nvml.NVML_CLOCK_VIDEO),
)
_ECC_TYPES = (
    ("corrected", nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
    ("uncorrected", nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
)
_ECC_LOCATIONS = (
    ("l1_cache", nvml.NVML_MEMORY_LOCATION_L1_CACHE),
    ("l2_cache", nvml.NVML_MEMORY_LOCATION_L2_CACHE),
    ("dram", nvml.NVML_MEMORY_LOCATION_DRAM),
    ("register_file", nvml.NVML_MEMORY_LOCATION_REGISTER_FILE),
    ("texture_memory", nvml.NVML_MEMORY_LOCATION_TEXTURE_MEMORY),
    ("texture_shm", nvml.NVML_MEMORY_LOCATION_TEXTURE_SHM),
    ("cbu", nvml.NVML_MEMORY_LOCATION_CBU),
    ("sram", nvml.NVML_MEMORY_LOCATION_SRAM),
)
_PROCESSES = (
    ("compute", (nvml.nvmlDeviceGetComputeRunningProcesses_v3, nvml.nvmlDeviceGetComputeRunningProcesses_v2)),
    (
        "graphics",
        (nvml.nvmlDeviceGetGraphicsRunningProcesses_v3, nvml.nvmlDeviceGetGraphicsRunningProcesses_v2),
    ),
    (
        "mps",
        (nvml.nvmlDeviceGetMPSComputeRunningProcesses_v3, nvml.nvmlDeviceGetMPSComputeRunningProcesses_v2),
    ),
)
# nvml.h nvmlClocksEventReason*; idle, application clocks and none hold nothing down.
_THROTTLES = (
    ("sw_power_cap", nvml.nvmlClocksEventReasonSwPowerCap),
    ("hw_slowdown", nvml.nvmlClocksEventReasonHwSlowdown),
    ("sync_boost", nvml.nvmlClocksEventReasonSyncBoost),
    ("sw_thermal", nvml.nvmlClocksEventReasonSwThermalSlowdown),
    ("hw_thermal", nvml.nvmlClocksEventReasonHwThermalSlowdown),
    ("hw_power_brake", nvml.nvmlClocksEventReasonHwPowerBrakeSlowdown),
    ("display_clock", nvml.nvmlClocksEventReasonDisplayClockSetting),
)


@dataclass(frozen=True, slots=True)
class Identity:
    """A GPU's UUID and its index."""

    uuid: str
    gpu: str


class Throttled:
    """Seconds in which a throttle reason was seen at both ends of a reading interval of at most `gap` seconds."""

    def __init__(self, gap: float) -> None:
        self._gap = gap
        self._seconds = dict.fromkeys((reason for reason, _ in _THROTTLES), 0.0)
        self._at: float | None = None
        self._mask = 0

    def observe(self, now: float, mask: int) -> dict[str, float]:
        """Add the time since the last observation; returns the totals."""
        elapsed = now - self._at if self._at is not None else 0.0
        if elapsed <= self._gap:
            for reason, bit in _THROTTLES:
                if mask & self._mask & bit:
                    self._seconds[reason] += elapsed
        self._at, self._mask = now, mask
        return self._seconds


class Gpu:
    """One attached GPU. Attaching and reading raise GpuGoneError when it does not answer."""

    def __init__(self, library: Library, index: int) -> None:
        self._library = library
        self._calls = Calls()
        try:
            self.handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError as failure:
            raise GpuGoneError(str(failure)) from None
        self.identity = Identity(self._calls(nvml.nvmlDeviceGetUUID, self.handle) or "", str(index))
        self._name = self._calls(nvml.nvmlDeviceGetName, self.handle) or ""
        pci = self._calls(nvml.nvmlDeviceGetPciInfo_v3, self.handle)
        self._pci = _text(pci.busId) if pci is not None else ""
        self._max_clocks = {
            domain: clock
            for domain, kind in _CLOCKS
            if (clock := self._calls(nvml.nvmlDeviceGetMaxClockInfo, self.handle, kind)) is not None
        }
        self._mig = _MigDevices(self._calls, self.handle)

    def read(self, now: float, throttled: Throttled) -> Readings:
        """Everything this GPU tells; `now` is in monotonic seconds."""
        self._calls.answered = False
        whole = Collected(self.identity.uuid, self.identity.gpu, "")
        mode = self._calls(nvml.nvmlDeviceGetMigMode, self.handle)
        enabled = mode is not None and mode[0] == nvml.NVML_DEVICE_MIG_ENABLE
        self._info(whole, "" if mode is None else "enabled" if enabled else "disabled")
        _memory(self._calls, self.handle, whole)
        self._bar1(whole)
        self._utilization(whole)
        self._power(whole)
        self._clocks(whole)
        self._throttle(whole, now, throttled)
        self._ecc(whole)
        self._remapped_rows(whole)
        if not enabled:
            _processes(self._calls, self.handle, whole)
        else:
            for mig in self._mig.devices(now):
                part = Collected(self.identity.uuid, self.identity.gpu, mig.uuid)
                part.add("palegreen_gpu_mig_info", 1, mig.profile, mig.gpu_instance, mig.compute_instance)
                _memory(mig.calls, mig.handle, part)
                _processes(mig.calls, mig.handle, part)
                whole.include(part.readings())
        if not self._calls.answered:
            raise GpuGoneError("it answers no call")
        return whole.readings()

    def _info(self, add: Collected, mig_mode: str) -> None:
        library = self._library
        simulated = "true" if library.simulated else "false"
        versions = (library.driver_version, library.cuda_version)
        add.add("palegreen_gpu_info", 1, self._name, self._pci, *versions, mig_mode, simulated)

    def _bar1(self, add: Collected) -> None:
        if (bar1 := self._calls(nvml.nvmlDeviceGetBAR1MemoryInfo, self.handle)) is not None:
            add.add("palegreen_gpu_bar1_total_bytes", bar1.bar1Total)
            add.add("palegreen_gpu_bar1_used_bytes", bar1.bar1Used)

    def _utilization(self, add: Collected) -> None:
        if (rates := self._calls(nvml.nvmlDeviceGetUtilizationRates, self.handle)) is not None:
            add.add("palegreen_gpu_utilization_ratio", rates.gpu / 100)
            add.add("palegreen_gpu_memory_controller_utilization_ratio", rates.memory / 100)

    def _power(self, add: Collected) -> None:
        for name, function in (
            ("palegreen_gpu_power_watts", nvml.nvmlDeviceGetPowerUsage),
            ("palegreen_gpu_power_limit_watts", nvml.nvmlDeviceGetEnforcedPowerLimit),
            ("palegreen_gpu_energy_joules_total", nvml.nvmlDeviceGetTotalEnergyConsumption),
        ):
            if (milli := self._calls(function, self.handle)) is not None:
                add.add(name, milli / 1000)
        celsius = self._calls(nvml.nvmlDeviceGetTemperature, self.handle, nvml.NVML_TEMPERATURE_GPU)
        if celsius is not None:
            add.add("palegreen_gpu_temperature_celsius", celsius, "gpu")
        fields = self._calls(nvml.nvmlDeviceGetFieldValues, self.handle, [nvml.NVML_FI_DEV_MEMORY_TEMP])
        if fields is not None and fields[0].nvmlReturn == nvml.NVML_SUCCESS:
            add.add("palegreen_gpu_temperature_celsius", fields[0].value.uiVal, "memory")

    def _clocks(self, add: Collected) -> None:
        for domain, kind in _CLOCKS:
            if (clock := self._calls(nvml.nvmlDeviceGetClockInfo, self.handle, kind)) is not None:
                add.add("palegreen_gpu_clock_hertz", clock * _MEGA, domain)
        for domain, clock in self._max_clocks.items():
            add.add("palegreen_gpu_clock_max_hertz", clock * _MEGA, domain)

    def _throttle(self, add: Collected, now: float, throttled: Throttled) -> None:
        mask = self._calls.first(
            (nvml.nvmlDeviceGetCurrentClocksEventReasons, self.handle),
            (nvml.nvmlDeviceGetCurrentClocksThrottleReasons, self.handle),
        )
        if mask is not None:
            for reason, seconds in throttled.observe(now, mask).items():
                add.add("palegreen_gpu_throttled_seconds_total", seconds, reason)

    def _ecc(self, add: Collected) -> None:
        """Errors by location; the total only where the driver does not split any, so that sums stay right."""
        for label, kind in _ECC_TYPES:
            by_location = {
                location: count
                for location, place in _ECC_LOCATIONS
                if (count := self._count_ecc(kind, place)) is not None
            }
            total = None
            if not by_location:
                total = self._calls(nvml.nvmlDeviceGetTotalEccErrors, self.handle, kind, nvml.NVML_AGGREGATE_ECC)
            for location, count in by_location.items():
                add.add("palegreen_gpu_ecc_errors_total", count, label, location)
            if total is not None:
                add.add("palegreen_gpu_ecc_errors_total", total, label, "all")

    def _count_ecc(self, kind: int, place: int) -> Any:
        function: Callable[..., Any] = nvml.nvmlDeviceGetMemoryErrorCounter
        return self._calls(function, self.handle, kind, nvml.NVML_AGGREGATE_ECC, place)

    def _remapped_rows(self, add: Collected) -> None:
        if (rows := self._calls(nvml.nvmlDeviceGetRemappedRows, self.handle)) is not None:
            correctable, uncorrectable, pending, failed = rows
            add.add("palegreen_gpu_remapped_rows", correctable, "correctable")
            add.add("palegreen_gpu_remapped_rows", uncorrectable, "uncorrectable")
            add.add("palegreen_gpu_row_remap_pending", bool(pending))
            add.add("palegreen_gpu_row_remap_failure", bool(failed))


class _MigDevice(NamedTuple):
    """A MIG device, and what it alone does not support."""

    uuid: str
    profile: str
    gpu_instance: str
    compute_instance: str
    handle: Any
    calls: Calls


class _MigDevices:
    """The MIG devices of a GPU, listed again every few seconds since instances come and go."""

    _EVERY = 5.0

    def __init__(self, calls: Calls, parent: Any) -> None:
        self._calls = calls
        self._parent = parent
        self._listed: float | None = None
        self._devices: list[_MigDevice] = []

    def devices(self, now: float) -> list[_MigDevice]:
        """The devices there are."""
        if self._listed is None or now - self._listed > self._EVERY:
            most = self._calls(nvml.nvmlDeviceGetMaxMigDeviceCount, self._parent) or 0
            self._devices = [device for index in range(most) if (device := self._device(index)) is not None]
            self._listed = now
        return self._devices

    def _device(self, index: int) -> _MigDevice | None:
        try:
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(self._parent, index)
        except nvml.NVMLError:
            return None  # no device in this slot
        calls = Calls()
        uuid = calls(nvml.nvmlDeviceGetUUID, handle)
        if not uuid:
            return None
        name = calls(nvml.nvmlDeviceGetName, handle) or ""
        profile = name.rpartition("MIG ")[2] if "MIG " in name else ""
        instance = calls(nvml.nvmlDeviceGetGpuInstanceId, handle)
        compute = calls(nvml.nvmlDeviceGetComputeInstanceId, handle)
        return _MigDevice(uuid, profile, _optional(instance), _optional(compute), handle, calls)


def _memory(calls: Calls, handle: Any, add: Collected) -> None:
    """Version 2 tells reserved from used; version 1, all that old drivers have, counts both as used."""
    memory = calls(nvml.nvmlDeviceGetMemoryInfo, handle, nvml.nvmlMemory_v2)
    if memory is not None:
        add.add("palegreen_gpu_memory_reserved_bytes", memory.reserved)
    else:
        memory = calls(nvml.nvmlDeviceGetMemoryInfo, handle)
    if memory is not None:
        add.add("palegreen_gpu_memory_total_bytes", memory.total)
        add.add("palegreen_gpu_memory_used_bytes", memory.used)
        add.add("palegreen_gpu_memory_free_bytes", memory.free)


def _processes(calls: Calls, handle: Any, add: Collected) -> None:
    for kind, functions in _PROCESSES:
        listed = calls.first(*((function, handle) for function in functions))
        if listed is None:
            continue
        add.add("palegreen_gpu_processes", len(listed), kind)
        by_pid: dict[int, int] = {}
        for process in listed:
            if process.usedGpuMemory is not None:
                by_pid[process.pid] = by_pid.get(process.pid, 0) + process.usedGpuMemory
        for pid, used in by_pid.items():
            add.add("palegreen_gpu_process_memory_used_bytes", used, str(pid), kind)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _optional(value: int | None) -> str:
    return "" if value is None else str(value)
