"""One thread per GPU: a call that hangs, as NVML calls do after some XIDs, holds up that GPU alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Lock, Thread

import structlog

from palegreen.exporter.nvml.binding import GpuGoneError, Library
from palegreen.exporter.nvml.events import Events
from palegreen.exporter.nvml.gpu import Gpu, Identity
from palegreen.exporter.nvml.totals import Totals
from palegreen.exporter.nvml.usage import DeviceUse
from palegreen.runtime.exposition import NOTHING, Readings

log = structlog.get_logger()

_TRY_AGAIN = 2.0  # seconds between attempts to find a lost GPU


class Worker:
    """Reads GPU `index` every `interval` seconds; where the driver keeps no samples, it looks every `tick` seconds.

    What takes over `deadline` counts as no answer.
    """

    def __init__(
        self,
        library: Library,
        index: int,
        events: Events,
        interval: float,
        deadline: float,
        tick: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._library = library
        self._index = index
        self._events = events
        self._interval = interval
        self._deadline = deadline
        self._tick = min(tick, interval)
        self._clock = clock
        self._lock = Lock()
        self._identity = Identity("", str(index))
        self._readings: Readings | None = None
        self._answered_at = clock()
        self._totals: dict[str, Totals] = {}
        self._usage: tuple[DeviceUse, ...] = ()
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
            self._of(identity).losses["hung"] += 1
            log.warning("gpu.hung", gpu=identity.gpu, uuid=identity.uuid, cause="a driver call does not return")
        return identity, up, readings or NOTHING

    def usage(self) -> tuple[DeviceUse, ...]:
        """The GPU or its MIG devices with their processes; empty while it does not answer."""
        with self._lock:
            late = self._clock() - self._answered_at > self._interval + self._deadline
            return () if late else self._usage

    def losses(self) -> dict[str, int]:
        """How often this GPU stopped answering: `lost` (the driver says so) or `hung`."""
        return dict(self._of(self._identity).losses)

    def _run(self) -> None:
        gpu: Gpu | None = None
        due = 0.0
        while not self._stopped.is_set():
            began = self._clock()
            try:
                if gpu is None:
                    gpu, due = self._attached(), began
                if self._events.unavailable(gpu.identity):
                    raise GpuGoneError("the driver reports it unavailable")
                totals = self._of(gpu.identity)
                gpu.sample(totals)
                if began >= due:
                    self._publish(gpu.read(totals), gpu.usage)
                    due = max(due + self._interval, began)
            except Exception as failure:  # noqa: BLE001 - a defect costs this GPU's series; _lost reports it
                self._lost(gpu, failure)
                gpu = None
                self._stopped.wait(max(_TRY_AGAIN, self._interval))
            else:
                tick = self._tick if gpu.must_be_polled else self._interval
                self._stopped.wait(max(tick - (self._clock() - began), 0.0))

    def _lost(self, gpu: Gpu | None, failure: Exception) -> None:
        self._publish(NOTHING, ())
        if not isinstance(failure, GpuGoneError):
            log.error("gpu.defect", gpu=str(self._index), exc_info=True)
        if gpu is not None:
            gpu.close()
            self._of(gpu.identity).losses["lost"] += 1
            log.warning("gpu.gone", gpu=str(self._index), uuid=gpu.identity.uuid, cause=str(failure))

    def _attached(self) -> Gpu:
        gpu = Gpu(self._library, self._index)
        self._events.watch(gpu.identity, gpu.handle)
        with self._lock:
            self._identity = gpu.identity
        log.info("gpu.found", gpu=gpu.identity.gpu, uuid=gpu.identity.uuid)
        return gpu

    def _of(self, identity: Identity) -> Totals:
        return self._totals.setdefault(identity.uuid, Totals())

    def _publish(self, readings: Readings, usage: tuple[DeviceUse, ...]) -> None:
        with self._lock:
            self._readings, self._usage = readings, usage
            self._answered_at = self._clock()
