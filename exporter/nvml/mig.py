"""MIG: the devices a GPU is cut into, and how cut up what is left of it is."""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import byref, c_uint
from typing import Any, NamedTuple

import pynvml as nvml

from palegreen.exporter.nvml.binding import Calls
from palegreen.exporter.nvml.gpm import Gpm
from palegreen.runtime.exposition import Collected

_EVERY = 5.0  # seconds between two listings of the devices
_CAPACITY_EVERY = 15.0  # seconds between two looks at what can still be created
_MOST = 64  # placements, or instances of one profile


class MigDevice(NamedTuple):
    """A MIG device, and what it alone does not support."""

    uuid: str
    profile: str
    gpu_instance: int | None
    compute_instance: int | None
    handle: Any
    calls: Calls
    gpm: Gpm | None


class MigDevices:
    """The MIG devices of a GPU, listed again every few seconds since instances come and go."""

    def __init__(self, calls: Calls, parent: Any) -> None:
        self._calls = calls
        self._parent = parent
        self._listed: float | None = None
        self._devices: list[MigDevice] = []
        self._capacity = Capacity(calls, parent)

    def devices(self, now: float) -> list[MigDevice]:
        """The devices there are; `now` in monotonic seconds."""
        if self._listed is None or now - self._listed > _EVERY:
            most = self._calls(nvml.nvmlDeviceGetMaxMigDeviceCount, self._parent) or 0
            known = {device.uuid: device for device in self._devices}
            found = (self._device(index, known) for index in range(most))
            self._devices = [device for device in found if device is not None]
            for gone in known.keys() - {device.uuid for device in self._devices}:
                if (gpm := known[gone].gpm) is not None:
                    gpm.close()
            self._listed = now
        return self._devices

    def capacity(self, now: float, add: Collected) -> None:
        """Publish what can still be created."""
        self._capacity.publish(now, add)

    def close(self) -> None:
        """Let go of the devices' samples."""
        for device in self._devices:
            if device.gpm is not None:
                device.gpm.close()

    def _device(self, index: int, known: dict[str, MigDevice]) -> MigDevice | None:
        try:
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(self._parent, index)
        except nvml.NVMLError:
            return None  # no device in this slot
        calls = Calls()
        uuid = calls(nvml.nvmlDeviceGetUUID, handle)
        if not uuid:
            return None
        if uuid in known:
            return known[uuid]._replace(handle=handle)
        name = calls(nvml.nvmlDeviceGetName, handle) or ""
        profile = name.rpartition("MIG ")[2] if "MIG " in name else ""
        instance = calls(nvml.nvmlDeviceGetGpuInstanceId, handle)
        compute = calls(nvml.nvmlDeviceGetComputeInstanceId, handle)
        gpm = Gpm(self._parent, instance) if instance is not None else None
        return MigDevice(uuid, profile, instance, compute, handle, calls, gpm)


class _Profile(NamedTuple):
    """A GPU instance profile: its name, its driver id, and the memory slices one takes."""

    name: str
    identifier: int
    slices: int
    end: int


class Capacity:
    """What can still be created on a MIG GPU, by profile. The calls need root; without it there is nothing to say.

    Fragmentation of profile p is 1 - remaining(p) x slices(p) / free memory slices: the share of the free memory
    that no instance of p can have.
    """

    def __init__(self, calls: Calls, parent: Any) -> None:
        self._calls = calls
        self._parent = parent
        self._looked: float | None = None
        self._found: list[tuple[str, int, float | None]] = []

    def publish(self, now: float, add: Collected) -> None:
        """Add the readings, renewed every few seconds; `now` in monotonic seconds."""
        if self._looked is None or now - self._looked > _CAPACITY_EVERY:
            self._found, self._looked = list(self._look()), now
        for profile, creatable, ratio in self._found:
            add.add("palegreen_mig_creatable_instances", creatable, profile)
            if ratio is not None:
                add.add("palegreen_mig_fragmentation_ratio", ratio, profile)

    def _look(self) -> Iterator[tuple[str, int, float | None]]:
        profiles = list(self._profiles())
        free = max((profile.end for profile in profiles), default=0) - sum(self._used(profile) for profile in profiles)
        for profile in profiles:
            remaining = self._calls(nvml.nvmlDeviceGetGpuInstanceRemainingCapacity, self._parent, profile.identifier)
            if remaining is not None:
                ratio = 1 - remaining * profile.slices / free if free > 0 else None
                yield profile.name, remaining, None if ratio is None else max(ratio, 0.0)

    def _profiles(self) -> Iterator[_Profile]:
        for number in range(nvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
            info = self._calls(nvml.nvmlDeviceGetGpuInstanceProfileInfo, self._parent, number)
            if info is None:
                continue
            placements = self._calls(_placements, self._parent, info.id)
            if placements:
                name = info.name if isinstance(info.name, str) else info.name.decode(errors="replace")
                slices = max(size for _, size in placements)
                yield _Profile(
                    name.removeprefix("MIG "), info.id, slices, max(start + size for start, size in placements)
                )

    def _used(self, profile: _Profile) -> int:
        return sum(self._calls(_sizes, self._parent, profile.identifier) or ())


def _placements(device: Any, profile: int) -> list[tuple[int, int]]:
    count, array = c_uint(_MOST), (nvml.c_nvmlGpuInstancePlacement_t * _MOST)()
    nvml.nvmlDeviceGetGpuInstancePossiblePlacements(device, profile, array, byref(count))
    return [(place.start, place.size) for place in array[: count.value]]


def _sizes(device: Any, profile: int) -> list[int]:
    count, array = c_uint(_MOST), (nvml.c_nvmlGpuInstance_t * _MOST)()
    nvml.nvmlDeviceGetGpuInstances(device, profile, array, byref(count))
    return [nvml.nvmlGpuInstanceGetInfo(instance).placement.size for instance in array[: count.value]]
