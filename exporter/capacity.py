"""Room on the node: free GPU memory that no single GPU offers, and how many more replicas of a model would fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from palegreen.exporter.config import ModelSize
from palegreen.exporter.nvml.usage import DeviceUse
from palegreen.runtime.exposition import Collected, Readings

FITS: Final = "fits"
FULL: Final = "full"
FRAGMENTED: Final = "fragmented"
TOO_LARGE: Final = "too_large"
TOO_FEW_GPUS: Final = "too_few_gpus"
_STATES = (FITS, FULL, FRAGMENTED, TOO_LARGE, TOO_FEW_GPUS)


class CapacitySource:
    """Free memory of all GPUs and MIG devices against the largest free on one of them, and room by model size."""

    name = "capacity"
    target = ""
    interval = 5.0
    deadline = 5.0

    def __init__(self, usage: Callable[[], Sequence[DeviceUse]], sizes: Sequence[ModelSize]) -> None:
        self._usage = usage
        self._sizes = tuple(sizes)

    def collect(self) -> Readings:
        """What is free now; nothing while no GPU answers."""
        devices = _distinct([device for device in self._usage() if device.total_bytes])
        collected = Collected()
        if not devices:
            return collected.readings()
        free = [device.free_bytes for device in devices]
        collected.add("palegreen_node_gpu_free_memory_bytes", sum(free))
        collected.add("palegreen_node_gpu_largest_free_memory_bytes", max(free))
        collected.add("palegreen_node_gpu_stranded_memory_bytes", sum(free) - max(free))
        for size in self._sizes:
            collected.add("palegreen_node_gpu_model_slots", slots(size, devices), size.name)
            state = fit(size, devices)
            for each in _STATES:
                collected.add("palegreen_node_gpu_model_fit", each == state, size.name, each)
        return collected.readings()

    def close(self) -> None:
        """Nothing is held."""

    def describe(self) -> str:
        """What is looked at."""
        return f"room for {', '.join(size.name for size in self._sizes) or 'models (no model_sizes are declared)'}"


def slots(size: ModelSize, devices: Sequence[DeviceUse]) -> int:
    """How many replicas still fit, each on `size.gpus` different devices with `size.memory` bytes free on each."""
    room = [int(device.free_bytes // size.memory) for device in _usable(size, devices)]
    fitting, beyond = 0, sum(room) // size.gpus + 1
    while beyond - fitting > 1:
        replicas = (fitting + beyond) // 2
        if sum(min(each, replicas) for each in room) >= replicas * size.gpus:
            fitting = replicas
        else:
            beyond = replicas
    return fitting


def fit(size: ModelSize, devices: Sequence[DeviceUse]) -> str:
    """Whether one more replica fits, and if not, why not."""
    if slots(size, devices):
        return FITS
    devices = _usable(size, devices)
    large_enough = sum(device.total_bytes >= size.memory for device in devices)
    if not large_enough:
        return TOO_LARGE
    if large_enough < size.gpus:
        return TOO_FEW_GPUS
    enough = sum(device.free_bytes for device in devices) >= size.memory * size.gpus
    return FRAGMENTED if enough else FULL


def _usable(size: ModelSize, devices: Sequence[DeviceUse]) -> list[DeviceUse]:
    """A model over several GPUs needs whole ones."""
    return [device for device in devices if size.gpus == 1 or not device.mig]


def _distinct(devices: Sequence[DeviceUse]) -> list[DeviceUse]:
    """Each memory once: the compute instances of one GPU instance (MIG) share theirs."""
    return list({(device.uuid, device.gpu_instance if device.mig else None): device for device in devices}.values())
