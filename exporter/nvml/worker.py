"""One thread per GPU: a call that hangs, as NVML calls do after some XIDs, holds up that GPU alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import NamedTuple

import structlog

from palegreen.exporter.nvml.binding import GpuGoneError, Library
from palegreen.exporter.nvml.events import Events
from palegreen.exporter.nvml.gpu import Gpu, Identity
from palegreen.exporter.nvml.known import Known
from palegreen.exporter.nvml.usage import DeviceUse
from palegreen.runtime.exposition import NOTHING, Readings

log = structlog.get_logger()

_TRY_AGAIN = 2.0  # seconds between attempts to find a lost GPU


class Pace(NamedTuple):
    """Seconds: a GPU is read every `interval`, and looked at every `tick` in between where its driver keeps no samples;
    what takes over `deadline` is no answer.
    """

    interval: float
    deadline: float
    tick: float


class Worker:
    """Samples and reads the GPU that has this index, from now until it is stopped."""

    def __init__(
        self,
        library: Library,
        index: int,
        events: Events,
        known: Known,
        pace: Pace,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._library = library
        self._index = index
        self._events = events
        self._known = known
        self._pace = pace
        self._clock = clock
        self._lock = Lock()
        self._identity = Identity("", str(index))
        self._readings: Readings | None = None
        self._answered_at = clock()
        self._usage: tuple[DeviceUse, ...] = ()
        self._hung = False
        self._stopped = Event()
        self._thread = Thread(target=self._run, name=f"gpu {index}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to let go of the GPU and to end."""
        self._stopped.set()

    def join(self, seconds: float) -> bool:
        """Wait at most so long for the thread to end; whether it has."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def latest(self) -> tuple[Identity, bool | None, Readings]:
        """The GPU, whether it answers (None before its first answer is due), and its readings."""
        with self._lock:
            late, identity = self._late(), self._identity
            readings = NOTHING if late else self._readings
            turned, self._hung = late != self._hung, late
        if turned and late:
            self._known.totals(identity).losses["hung"] += 1
            log.warning("gpu.hung", gpu=identity.gpu, uuid=identity.uuid, cause="a driver call does not return")
        elif turned:
            log.info("gpu.answers_again", gpu=identity.gpu, uuid=identity.uuid)
        if readings is None:
            return identity, None, NOTHING
        return identity, readings is not NOTHING, readings

    def usage(self) -> tuple[DeviceUse, ...]:
        """The GPU or its MIG devices with their processes; empty while it does not answer."""
        with self._lock:
            return () if self._late() else self._usage

    def _late(self) -> bool:
        return self._clock() - self._answered_at > self._pace.interval + self._pace.deadline

    def _run(self) -> None:
        gpu: Gpu | None = None
        due = 0.0
        while not self._stopped.is_set():
            began = self._clock()
            try:
                if gpu is None:
                    gpu, due = self._attached(), began
                    continue
                if self._events.unavailable(gpu.identity):
                    raise GpuGoneError("the driver reports it unavailable")
                totals = self._known.totals(gpu.identity)
                gpu.sample(totals)
                if began >= due:
                    self._publish(gpu.read(totals), gpu.usage)
                    due = max(due + self._pace.interval, began)
            except Exception as failure:  # noqa: BLE001 - a defect costs this GPU's series; _lost reports it
                self._lost(gpu, failure)
                gpu = None
                self._stopped.wait(max(_TRY_AGAIN, self._pace.interval))
            else:
                if gpu.must_be_polled:  # not the event: a wait on it costs several times as much, eighty times a second
                    time.sleep(max(self._pace.tick - (self._clock() - began), 0.0))
                else:
                    # the driver keeps some seconds of samples, so a long interval does not wait for its end
                    self._stopped.wait(min(max(due - self._clock(), 0.0), 1.0))
        if gpu is not None:
            gpu.close()

    def _lost(self, gpu: Gpu | None, failure: Exception) -> None:
        self._publish(NOTHING, ())
        if not isinstance(failure, GpuGoneError):
            log.error("gpu.defect", gpu=str(self._index), exc_info=True)
        if gpu is None:
            return
        gpu.close()
        if not self._stopped.is_set():  # else a call was under way for so long that the driver has been let go of
            self._known.totals(gpu.identity).losses["lost"] += 1
            log.warning("gpu.gone", gpu=str(self._index), uuid=gpu.identity.uuid, cause=str(failure))

    def _attached(self) -> Gpu:
        gpu = Gpu(self._library, self._index)
        if self._stopped.is_set():  # it has hung for so long that the index may be another GPU's by now
            return gpu
        self._events.watch(gpu.identity, gpu.handle)
        self._known.attached(gpu.identity)
        with self._lock:
            self._identity = gpu.identity
        log.info("gpu.found", gpu=gpu.identity.gpu, uuid=gpu.identity.uuid)
        return gpu

    def _publish(self, readings: Readings, usage: tuple[DeviceUse, ...]) -> None:
        with self._lock:
            self._readings, self._usage = readings, usage
            self._answered_at = self._clock()
