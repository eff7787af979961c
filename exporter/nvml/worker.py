"""One thread per GPU: a call that hangs, as NVML calls do after some XIDs, holds up that GPU alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Lock, Thread

import structlog

from palegreen.exporter.nvml.binding import GpuGoneError, Library
from palegreen.exporter.nvml.events import Events
from palegreen.exporter.nvml.gpu import Gpu, Identity, Throttled
from palegreen.exporter.nvml.usage import DeviceUse
from palegreen.runtime.exposition import NOTHING, Readings

log = structlog.get_logger()

_TRY_AGAIN = 2.0  # seconds between attempts to find a lost GPU


class Worker:
    """Reads GPU `index` every `interval` seconds; a reading that takes over `deadline` counts as no answer."""

    def __init__(
        self,
        library: Library,
        index: int,
        events: Events,
        interval: float,
        deadline: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._library = library
        self._index = index
        self._events = events
        self._interval = interval
        self._deadline = deadline
        self._clock = clock
        self._lock = Lock()
        self._identity = Identity("", str(index))
        self._readings: Readings | None = None
        self._answered_at = clock()
        self._throttled: dict[str, Throttled] = {}
        self._hung = False
        self._stopped = Event()
        Thread(target=self._run, name=f"gpu {index}", daemon=True).start()

    def stop(self) -> None:
        """Ask the thread to end; it is not waited for."""
        self._stopped.set()

    def latest(self) -> tuple[Identity, bool | None, Readings]:
        """The GPU, whether it answers (None before its first answer is due), and its readings."""
        with self._lock:
            late = self._clock() - self._answered_at > self._interval + self._deadline
            readings, identity = NOTHING if late else self._readings, self._identity
            hung, back, self._hung = late and not self._hung, self._hung and not late, late
            up = None if self._readings is None and not late else readings is not None and readings is not NOTHING
        if back:
            log.info("gpu.answers_again", gpu=identity.gpu, uuid=identity.uuid)
        if hung:
            log.warning("gpu.hung", gpu=identity.gpu, uuid=identity.uuid, cause="a driver call does not return")
        return identity, up, readings or NOTHING

    def usage(self) -> tuple[DeviceUse, ...]:
        """The GPU and its MIG devices with their processes; empty while it does not answer."""
        return ()

    def _run(self) -> None:
        gpu: Gpu | None = None
        while not self._stopped.is_set():
            began = self._clock()
            try:
                if gpu is None:
                    gpu = self._attached()
                if self._events.unavailable(gpu.identity):
                    raise GpuGoneError("the driver reports it unavailable")
                self._publish(gpu.read(self._clock(), self._throttle(gpu.identity)))
                wait = self._interval - (self._clock() - began)
            except GpuGoneError as failure:
                if gpu is not None:
                    log.warning("gpu.gone", gpu=str(self._index), uuid=gpu.identity.uuid, cause=str(failure))
                gpu, wait = None, max(_TRY_AGAIN, self._interval)
                self._publish(NOTHING)
            except Exception:
                log.exception("gpu.defect", gpu=str(self._index))
                gpu, wait = None, max(_TRY_AGAIN, self._interval)
                self._publish(NOTHING)
            self._stopped.wait(max(wait, 0))

    def _attached(self) -> Gpu:
        gpu = Gpu(self._library, self._index)
        self._events.watch(gpu.identity, gpu.handle)
        with self._lock:
            self._identity = gpu.identity
        log.info("gpu.found", gpu=gpu.identity.gpu, uuid=gpu.identity.uuid)
        return gpu

    def _throttle(self, identity: Identity) -> Throttled:
        return self._throttled.setdefault(identity.uuid, Throttled(self._interval + self._deadline))

    def _publish(self, readings: Readings) -> None:
        with self._lock:
            self._readings = readings
            self._answered_at = self._clock()
