"""The GPU driver as a source: it gathers what the GPUs' workers read last, and never calls a GPU itself."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event, Thread

import structlog

from palegreen.exporter.nvml.binding import DriverError, Library
from palegreen.exporter.nvml.events import Events
from palegreen.exporter.nvml.usage import DeviceUse
from palegreen.exporter.nvml.worker import Worker
from palegreen.exporter.source import SourceError
from palegreen.runtime.exposition import Collected, Readings

log = structlog.get_logger()

_COUNT_EVERY = 5.0  # seconds between two looks at how many GPUs there are


class NvmlSource:
    """All GPUs of the node, sampled every `tick` seconds and published every `interval`.

    `library` is a path or None for the loader's search.
    """

    name = "nvml"
    target = ""

    def __init__(
        self, library: Path | None = None, interval: float = 1.0, deadline: float = 3.0, tick: float = 0.1
    ) -> None:
        self.interval = interval
        self._tick = tick
        self.deadline = deadline
        self._library = Library(library)
        self._workers: list[Worker] = []
        self._events = Events()
        self._present: int | None = None
        self._trouble: DriverError | None = None
        self._started = False
        self._stopped = Event()

    def collect(self) -> Readings:
        """What every GPU said last; raises SourceError when the driver as a whole cannot be used."""
        if not self._started:
            self._start()
        trouble = self._trouble
        collected = Collected()
        collected.add("palegreen_driver_library_mismatch", trouble is not None and trouble.mismatch)
        if self._present is not None:
            collected.add("palegreen_driver_gpus", self._present)
        for worker in self._workers:
            identity, up, readings = worker.latest()
            if up is not None:
                collected.add("palegreen_gpu_up", up, identity.uuid, identity.gpu, "")
                for reason, count in worker.losses().items():
                    collected.add("palegreen_gpu_losses_total", count, identity.uuid, identity.gpu, "", reason)
            collected.include(readings)
        collected.include(self._events.readings())
        if trouble is not None:
            raise SourceError(str(trouble), collected.readings())
        return collected.readings()

    def usage(self) -> tuple[DeviceUse, ...]:
        """Every GPU and MIG device that answers, with its processes."""
        return tuple(use for worker in self._workers for use in worker.usage())

    def provides(self, metric: str, uuid: str) -> bool:
        """Whether this source publishes the metric for the GPU (by its UUID) now, so that no other source must."""
        return any(
            f'{metric}{{uuid="{uuid}"' in readings.lines.get(metric, "")
            for _, _, readings in (worker.latest() for worker in self._workers)
        )

    def mig_device(self, uuid: str, gpu_instance: str) -> str:
        """UUID of the MIG device in a GPU instance; empty where there is none, or several share the instance."""
        found = [use.mig for use in self.usage() if use.uuid == uuid and str(use.gpu_instance) == gpu_instance]
        return found[0] if len(found) == 1 else ""

    def wait(self) -> None:
        """Until every GPU has answered or is past its deadline; for a single exposition."""
        while any(worker.latest()[1] is None for worker in self._workers):
            time.sleep(0.01)

    def close(self) -> None:
        """Stop the workers; a driver call under way is left to itself."""
        self._stopped.set()
        self._events.stop()
        for worker in self._workers:
            worker.stop()

    def describe(self) -> str:
        """Driver version and number of GPUs."""
        if not self._started:
            return "GPU driver (not started)"
        simulated = ", simulated" if self._library.simulated else ""
        return f"GPU driver {self._library.driver_version}{simulated}: {len(self._workers)} GPUs"

    def _start(self) -> None:
        try:
            self._library.start()
            count = self._library.count()
        except DriverError as failure:
            collected = Collected()
            if failure.mismatch:
                collected.add("palegreen_driver_library_mismatch", 1)
            raise SourceError(str(failure), collected.readings()) from None
        self._started = True
        self._events.start()
        self._grow(count)
        Thread(target=self._watch_count, name="gpu count", daemon=True).start()

    def _watch_count(self) -> None:
        """In a thread of its own: even the count can hang when the driver is stuck."""
        while not self._stopped.wait(_COUNT_EVERY):
            try:
                self._grow(self._library.count())
                self._trouble = None
            except DriverError as failure:
                self._present, self._trouble = None, failure

    def _grow(self, count: int) -> None:
        """A worker for each index ever seen: one whose GPU has left keeps saying so."""
        self._present = count
        for index in range(len(self._workers), count):
            self._workers.append(Worker(self._library, index, self._events, self.interval, self.deadline, self._tick))
