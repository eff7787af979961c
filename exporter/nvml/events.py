"""XID errors and lost GPUs, as the driver reports them through an event set.

An XID gauge, as other exporters have it, keeps the last code for ever and loses repeats; here each event counts.
"""

from __future__ import annotations

import ctypes
import time
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from typing import Any

import pynvml as nvml
import structlog

from palegreen.catalogue.xids import xid
from palegreen.exporter.nvml.gpu import Identity
from palegreen.runtime.exposition import Collected, Readings

log = structlog.get_logger()

_WAIT_MS = 500  # bounds how long a stop takes
_WANTED = nvml.nvmlEventTypeXidCriticalError | nvml.nvmlEventTypeGpuUnavailableError


@dataclass(slots=True)
class _Xids:
    """Counts and times of one GPU's XIDs by code; `identity` has its latest index."""

    identity: Identity
    counts: dict[int, int] = field(default_factory=dict)
    latest: dict[int, float] = field(default_factory=dict)


class Events:
    """Waits for the driver's events in a thread of its own and counts them."""

    def __init__(self) -> None:
        self._set: Any = None
        self._by_handle: dict[int | None, Identity] = {}
        self._xids: dict[str, _Xids] = {}
        self._unavailable: set[Identity] = set()
        self._lock = Lock()
        self._stopped = Event()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Begin to wait, each time the library has been started; a driver without events is left alone."""
        with self._lock:
            self._by_handle.clear()
            self._unavailable.clear()
        try:
            self._set = nvml.nvmlEventSetCreate()
        except nvml.NVMLError as failure:
            self._set = None
            log.warning("nvml.no_events", cause=str(failure), effect="XID errors are not counted")
            return
        self._stopped = Event()
        self._thread = Thread(target=self._run, args=(self._set, self._stopped), name="nvml events", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread at its next wait; what has been counted stays."""
        self._stopped.set()

    def join(self, seconds: float) -> bool:
        """Wait at most so long for the thread to end, and free the event set once it has; whether it has."""
        if self._thread is None:
            return True
        self._thread.join(seconds)
        if self._thread.is_alive():
            return False
        self._thread, events, self._set = None, self._set, None
        with suppress(nvml.NVMLError):  # of a driver that is away
            nvml.nvmlEventSetFree(events)
        return True

    def watch(self, identity: Identity, handle: Any) -> None:
        """Report the events of a GPU that has been attached; called from its own thread, since it may hang."""
        if self._set is None:
            return
        try:
            supported = nvml.nvmlDeviceGetSupportedEventTypes(handle)
            if supported & _WANTED:
                nvml.nvmlDeviceRegisterEvents(handle, supported & _WANTED, self._set)
        except nvml.NVMLError as failure:
            log.warning(
                "nvml.no_events",
                gpu=identity.gpu,
                cause=str(failure),
                effect="its XID errors are not counted",
            )
            return
        with self._lock:
            self._by_handle[_address(handle)] = identity
            if identity.uuid in self._xids:
                self._xids[identity.uuid].identity = identity
            self._unavailable.discard(identity)

    def unavailable(self, identity: Identity) -> bool:
        """Whether the driver reported this GPU as unavailable since it was attached."""
        with self._lock:
            return identity in self._unavailable

    def readings(self) -> Readings:
        """Counts so far; they outlive the GPU, since an XID is often its last word."""
        collected = Collected()
        with self._lock:
            for xids in self._xids.values():
                for code, count in xids.counts.items():
                    labels = (xids.identity.uuid, xids.identity.gpu, "", str(code), xid(code).cls)
                    collected.add("palegreen_gpu_xid_errors_total", count, *labels)
                    collected.add("palegreen_gpu_xid_last_timestamp_seconds", xids.latest[code], *labels)
        return collected.readings()

    def _run(self, events: Any, stopped: Event) -> None:
        wait = getattr(nvml, "nvmlEventSetWait_v2", None) or nvml.nvmlEventSetWait
        while not stopped.is_set():
            try:
                self._count(wait(events, _WAIT_MS))
            except nvml.NVMLError as failure:
                if failure.value != nvml.NVML_ERROR_TIMEOUT:  # a lost GPU makes each wait return at once
                    stopped.wait(_WAIT_MS / 1000)
            except Exception:
                log.exception("nvml.odd_event")
                stopped.wait(_WAIT_MS / 1000)

    def _count(self, event: Any) -> None:
        with self._lock:
            identity = self._by_handle.get(_address(event.device))
            if identity is None:
                return
            if event.eventType & nvml.nvmlEventTypeGpuUnavailableError:
                self._unavailable.add(identity)
            if event.eventType & nvml.nvmlEventTypeXidCriticalError:
                code = int(event.eventData)
                xids = self._xids.setdefault(identity.uuid, _Xids(identity))
                xids.counts[code] = xids.counts.get(code, 0) + 1
                xids.latest[code] = time.time()
                known = xid(code)
                log.warning(
                    "gpu.xid", gpu=identity.gpu, uuid=identity.uuid, xid=code, calls_for=known.cls, name=known.name
                )
                return
        log.warning("gpu.event", gpu=identity.gpu, uuid=identity.uuid, type=event.eventType, data=event.eventData)


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value
