"""Families of readings that need nothing but a GPU's handle: each is one small function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pynvml as nvml

from palegreen.exporter.nvml.binding import Calls
from palegreen.runtime.exposition import Collected

MEGA = 1_000_000
CLOCKS = (
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
_FABRIC_STATES = {0: "not_supported", 1: "not_started", 2: "in_progress", 3: "completed"}  # NVML_GPU_FABRIC_STATE_*


def memory(calls: Calls, handle: Any, add: Collected) -> Any:
    """Memory in bytes; version 2 tells reserved from used, version 1, all that old drivers have, counts both as used.

    Returns the driver's structure, None where it does not tell.
    """
    found = calls(nvml.nvmlDeviceGetMemoryInfo, handle, nvml.nvmlMemory_v2)
    if found is not None:
        add.add("palegreen_gpu_memory_reserved_bytes", found.reserved)
    else:
        found = calls(nvml.nvmlDeviceGetMemoryInfo, handle)
    if found is not None:
        add.add("palegreen_gpu_memory_total_bytes", found.total)
        add.add("palegreen_gpu_memory_used_bytes", found.used)
        add.add("palegreen_gpu_memory_free_bytes", found.free)
    return found


def bar1(calls: Calls, handle: Any, add: Collected) -> None:
    """The BAR1 aperture."""
    if (found := calls(nvml.nvmlDeviceGetBAR1MemoryInfo, handle)) is not None:
        add.add("palegreen_gpu_bar1_total_bytes", found.bar1Total)
        add.add("palegreen_gpu_bar1_used_bytes", found.bar1Used)


def media(calls: Calls, handle: Any, add: Collected) -> None:
    """Encoder and decoder utilisation."""
    for name, function in (
        ("palegreen_gpu_encoder_utilization_ratio", nvml.nvmlDeviceGetEncoderUtilization),
        ("palegreen_gpu_decoder_utilization_ratio", nvml.nvmlDeviceGetDecoderUtilization),
    ):
        if (found := calls(function, handle)) is not None:
            add.add(name, found[0] / 100)


def power(calls: Calls, handle: Any, add: Collected) -> bool:
    """Power and energy; returns whether the driver counts the energy."""
    for name, function in (
        ("palegreen_gpu_power_watts", nvml.nvmlDeviceGetPowerUsage),
        ("palegreen_gpu_power_limit_watts", nvml.nvmlDeviceGetEnforcedPowerLimit),
    ):
        if (milli := calls(function, handle)) is not None:
            add.add(name, milli / 1000)
    energy = calls(nvml.nvmlDeviceGetTotalEnergyConsumption, handle)
    if energy is not None:
        add.add("palegreen_gpu_energy_joules_total", energy / 1000)
    return energy is not None


def temperature(calls: Calls, handle: Any, add: Collected) -> None:
    """Temperature of the GPU, degrees to its slowdown, and fans; the memory's temperature is a field value."""
    celsius = calls(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
    if celsius is not None:
        add.add("palegreen_gpu_temperature_celsius", celsius, "gpu")
    if (margin := calls(nvml.nvmlDeviceGetMarginTemperature, handle)) is not None:
        add.add("palegreen_gpu_temperature_margin_celsius", margin)
    for fan in range(calls(nvml.nvmlDeviceGetNumFans, handle) or 0):
        if (percent := calls(nvml.nvmlDeviceGetFanSpeed_v2, handle, fan)) is not None:
            add.add("palegreen_gpu_fan_speed_ratio", percent / 100, str(fan))


def clocks(calls: Calls, handle: Any, add: Collected) -> dict[str, int]:
    """Present clocks; returned in MHz by domain."""
    found: dict[str, int] = {}
    for domain, kind in CLOCKS:
        if (clock := calls(nvml.nvmlDeviceGetClockInfo, handle, kind)) is not None:
            found[domain] = clock
            add.add("palegreen_gpu_clock_hertz", clock * MEGA, domain)
    return found


def ecc(calls: Calls, handle: Any, add: Collected) -> None:
    """Errors by location; the total only where the driver does not split any, so that sums stay right."""
    count: Callable[..., Any] = nvml.nvmlDeviceGetMemoryErrorCounter
    for label, kind in _ECC_TYPES:
        split = False
        for location, place in _ECC_LOCATIONS:
            if (errors := calls(count, handle, kind, nvml.NVML_AGGREGATE_ECC, place)) is not None:
                add.add("palegreen_gpu_ecc_errors_total", errors, label, location)
                split = True
        if not split:
            total = calls(nvml.nvmlDeviceGetTotalEccErrors, handle, kind, nvml.NVML_AGGREGATE_ECC)
            if total is not None:
                add.add("palegreen_gpu_ecc_errors_total", total, label, "all")


def remapped_rows(calls: Calls, handle: Any, add: Collected) -> None:
    """Rows of memory that spares have replaced."""
    if (rows := calls(nvml.nvmlDeviceGetRemappedRows, handle)) is not None:
        correctable, uncorrectable, pending, failed = rows
        add.add("palegreen_gpu_remapped_rows", correctable, "correctable")
        add.add("palegreen_gpu_remapped_rows", uncorrectable, "uncorrectable")
        add.add("palegreen_gpu_row_remap_pending", bool(pending))
        add.add("palegreen_gpu_row_remap_failure", bool(failed))


def pcie_link(calls: Calls, handle: Any, add: Collected) -> None:
    """Generation and width of the PCIe link, now and at most; a link that trained low halves a GPU's bandwidth."""
    for name, now, most in (
        (
            "palegreen_gpu_pcie_link_generation",
            nvml.nvmlDeviceGetCurrPcieLinkGeneration,
            nvml.nvmlDeviceGetMaxPcieLinkGeneration,
        ),
        ("palegreen_gpu_pcie_link_width", nvml.nvmlDeviceGetCurrPcieLinkWidth, nvml.nvmlDeviceGetMaxPcieLinkWidth),
    ):
        for label, function in (("current", now), ("max", most)):
            if (value := calls(function, handle)) is not None:
                add.add(name, value, label)


def modes(calls: Calls, handle: Any, add: Collected) -> None:
    """Persistence mode, NVLink fabric and chip-to-chip link, where the GPU has them."""
    persistence = calls(nvml.nvmlDeviceGetPersistenceMode, handle)
    if persistence is not None:
        add.add("palegreen_gpu_persistence_mode", bool(persistence))
    if (fabric := calls(_fabric, handle)) is not None and fabric.state != 0:
        for number, state in _FABRIC_STATES.items():
            if number:
                add.add("palegreen_gpu_fabric_state", fabric.state == number, state)
        add.add("palegreen_gpu_fabric_status", fabric.status)
    if (link := calls(nvml.nvmlDeviceGetC2cModeInfoV, handle)) is not None:
        add.add("palegreen_gpu_c2c_enabled", bool(link.isC2cEnabled))


def _fabric(handle: Any) -> Any:
    info = nvml.c_nvmlGpuFabricInfoV_t()
    nvml.nvmlDeviceGetGpuFabricInfoV(handle, nvml.byref(info))
    return info
