"""Binding and unbinding of GPUs, as the driver announces them (nvml.h nvmlSystemEventSet*).

NVML holds the device files open from nvmlInit to nvmlShutdown, and the driver does not end an unbind while anybody
does: it announces the unbind, waits for its users in steps of half a second, and then takes the GPU out of /proc
(nv_pci_remove of NVIDIA's open kernel modules).
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from pathlib import Path
from threading import Event

import pynvml as nvml

_WAIT_MS = 500  # bounds how long a stop takes
_MOST = 8  # events of one look
_LOOK_EVERY = 0.1  # seconds
_UNSEEN = 2.0  # seconds for an unbind where /proc does not show it: four steps of the driver
_ADDRESS = re.compile(r"[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]")


class SystemEvents:
    """An event set for binding and unbinding. Raises NVMLError where the driver has none."""

    def __init__(self) -> None:
        self._set = nvml.nvmlSystemEventSetCreate(nvml.nvmlSystemEventSetCreateRequest_v1)
        self._buffer = (nvml.c_nvmlSystemEventData_v1_t * _MOST)()
        try:
            kinds = nvml.nvmlSystemEventTypeGpuDriverUnbind | nvml.nvmlSystemEventTypeGpuDriverBind
            nvml.nvmlSystemRegisterEvents(nvml.nvmlSystemRegisterEventRequest_v1, kinds, self._set)
        except nvml.NVMLError:
            self.close()
            raise

    def close(self) -> None:
        """Free the set; before nvmlShutdown."""
        with suppress(nvml.NVMLError):  # of a driver that is away
            nvml.nvmlSystemEventSetFree(nvml.nvmlSystemEventSetFreeRequest_v1, self._set)

    def wait(self, stopped: Event) -> tuple[str, str] | None:
        """The next `unbind` or `bind` with the GPU's PCI address; None once stopped."""
        while not stopped.is_set():
            try:
                found = nvml.nvmlSystemEventSetWait(
                    nvml.nvmlSystemEventSetWaitRequest_v1, self._set, _WAIT_MS, self._buffer, _MOST
                )
            except nvml.NVMLError:  # a driver in trouble answers at once
                stopped.wait(_WAIT_MS / 1000)
                continue
            if found:
                unbind = [event for event in found if event["eventType"] & nvml.nvmlSystemEventTypeGpuDriverUnbind]
                event = (unbind or found)[0]
                return "unbind" if unbind else "bind", _address(event["gpuId"])
        return None


def bound(folder: Path) -> int | None:
    """GPUs that the driver has, by the folder in which it has one for each; None where there is no such folder."""
    try:
        return sum(_ADDRESS.fullmatch(entry.name) is not None for entry in folder.iterdir())
    except OSError:
        return None


def wait_until_unbound(folder: Path, before: int | None, seconds: float, stopped: Event) -> None:
    """Until there are fewer GPUs than `before`, for at most so many seconds."""
    deadline = time.monotonic() + (seconds if before is not None else min(_UNSEEN, seconds))
    while time.monotonic() < deadline and not stopped.wait(_LOOK_EVERY):
        now = bound(folder)
        if before is not None and now is not None and now < before:
            return


def _address(number: int) -> str:
    """The driver's GPU id: domain, bus and device."""
    return f"{number >> 16:04x}:{number >> 8 & 0xFF:02x}:{number & 0xFF:02x}.0"
