"""Who uses a GPU, as the driver tells it: what attribution, capacity and allocators build on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """One process on one device: bytes it holds and seconds of SM time since it was first seen.

    None where the driver does not tell (NVML_VALUE_NOT_AVAILABLE; no process utilisation on MIG).
    """

    pid: int
    memory_bytes: int | None
    busy_seconds: float | None


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """One GPU, or one MIG device of it (`mig` is its UUID), with its processes and memory in bytes.

    `busy_seconds` is its integral of utilisation so far; both it and the SM clock are None where nothing tells.
    `minor` is that of the GPU's /dev/nvidia<minor>, for its MIG devices too; the instances are those of a MIG device.
    """

    uuid: str
    gpu: str
    mig: str
    total_bytes: int
    free_bytes: int
    processes: tuple[ProcessUse, ...]
    busy_seconds: float | None = None
    sm_clock_hertz: float | None = None
    minor: int | None = None
    gpu_instance: int | None = None
    compute_instance: int | None = None
