"""The GPU driver as a source: it gathers what the GPUs' workers read last, and never calls a GPU itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pynvml as nvml
import structlog

from palegreen.exporter.nvml import unbind
from palegreen.exporter.nvml.binding import DriverError, Library
from palegreen.exporter.nvml.events import Events
from palegreen.exporter.nvml.gpu import Identity
from palegreen.exporter.nvml.known import Known
from palegreen.exporter.nvml.session import Session
from palegreen.exporter.nvml.unbind import SystemEvents
from palegreen.exporter.nvml.usage import DeviceUse
from palegreen.exporter.nvml.worker import Pace, Worker
from palegreen.exporter.source import SourceError
from palegreen.runtime.exposition import NOTHING, Collected, Readings

log = structlog.get_logger()

_PATIENCE = 2.0  # seconds for the workers to let go; a call that hangs does not hold up the others for longer
_UNBIND_WITHIN = 10.0  # seconds after which GPUs are read again, whether the unbind has happened or not
_TRY_AGAIN = 2.0  # seconds between two attempts to start the driver library again


class NvmlSource:
    """All GPUs of the node, sampled every `tick` seconds and published every `interval`.

    `library` is a path or None for the loader's search; `gpus` is where the driver has a folder for each GPU it has.
    """

    name = "nvml"
    target = ""

    def __init__(
        self,
        library: Path | None = None,
        interval: float = 1.0,
        deadline: float = 3.0,
        tick: float = 0.1,
        gpus: Path = Path("/proc/driver/nvidia/gpus"),
    ) -> None:
        self.interval = interval
        self.deadline = deadline
        self._pace = Pace(interval, deadline, min(tick, interval))
        self._gpus = gpus
        self._library = Library(library)
        self._events = Events()
        self._known = Known()
        self._session: Session | None = None
        self._trouble: DriverError | None = None  # why there is no session, if there should be one
        self._started = False
        self._stopped = Event()

    def collect(self) -> Readings:
        """What every GPU said last; raises SourceError when the driver as a whole cannot be used."""
        if not self._started:
            self._start()
        session = self._session
        trouble = session.trouble if session is not None else self._trouble
        collected = Collected()
        collected.add("palegreen_driver_library_mismatch", trouble is not None and trouble.mismatch)
        collected.add("palegreen_driver_stuck", self._library.waiting() > self.deadline)
        if session is not None and session.present is not None:
            collected.add("palegreen_driver_gpus", session.present)
        for identity, up, readings in self._shown():
            collected.add("palegreen_gpu_up", up, identity.uuid, identity.gpu, "")
            for reason, count in self._known.totals(identity).losses.items():
                collected.add("palegreen_gpu_losses_total", count, identity.uuid, identity.gpu, "", reason)
            collected.include(readings)
        collected.include(self._events.readings())
        if trouble is not None:
            raise SourceError(str(trouble), collected.readings())
        return collected.readings()

    def usage(self) -> tuple[DeviceUse, ...]:
        """Every GPU and MIG device that answers, with its processes."""
        return tuple(use for worker in self._workers() for use in worker.usage())

    def provides(self, metric: str, uuid: str) -> bool:
        """Whether this source publishes the metric for the GPU (by its UUID) now, so that no other source must."""
        return any(
            f'{metric}{{uuid="{uuid}"' in readings.lines.get(metric, "")
            for _, _, readings in (worker.latest() for worker in self._workers())
        )

    def mig_device(self, uuid: str, gpu_instance: str) -> str:
        """UUID of the MIG device in a GPU instance; empty where there is none, or several share the instance."""
        found = [use.mig for use in self.usage() if use.uuid == uuid and str(use.gpu_instance) == gpu_instance]
        return found[0] if len(found) == 1 else ""

    def wait(self) -> None:
        """Until every GPU has answered or is past its deadline; for a single exposition."""
        while any(worker.latest()[1] is None for worker in self._workers()):
            time.sleep(0.01)

    def close(self) -> None:
        """Stop the workers; a driver call under way is left to itself."""
        self._stopped.set()
        if self._session is not None:
            self._session.stop()

    def describe(self) -> str:
        """Driver version and number of GPUs."""
        if not self._started:
            return "GPU driver (not started)"
        simulated = ", simulated" if self._library.simulated else ""
        return f"GPU driver {self._library.driver_version}{simulated}: {len(self._known.identities())} GPUs"

    def _workers(self) -> tuple[Worker, ...]:
        session = self._session
        return session.workers if session is not None else ()

    def _shown(self) -> Iterator[tuple[Identity, bool, Readings]]:
        """Each GPU once, by its UUID: what answers, then what is known and does not, then what never had a name."""
        latest = [worker.latest() for worker in self._workers()]
        accounted = {identity.uuid for identity, up, _ in latest if up is None}  # its first answer is not due
        for identity, up, readings in latest:
            if up and (identity.uuid not in accounted or not identity.uuid):
                yield identity, True, readings
                accounted.add(identity.uuid)
        away = [identity for identity in self._known.identities() if identity.uuid not in accounted]
        for identity in away:
            yield identity, False, NOTHING
        nameless = [identity for identity, up, _ in latest if up is False and not identity.uuid]
        for identity in nameless[len(away) :]:  # one that has not answered again is most likely one of those away
            yield identity, False, NOTHING

    def _start(self) -> None:
        try:
            self._begin()
        except DriverError as failure:
            collected = Collected()
            if failure.mismatch:
                collected.add("palegreen_driver_library_mismatch", 1)
            raise SourceError(str(failure), collected.readings()) from None
        self._started = True
        Thread(target=self._heed_unbinds, name="gpu unbind", daemon=True).start()

    def _begin(self) -> None:
        self._library.start()
        try:
            count = self._library.count()
        except DriverError:
            self._library.release()
            raise
        self._session = Session(self._library, count, self._events, self._known, self._pace)

    def _heed_unbinds(self) -> None:
        """Let go of the driver when a GPU is unbound, which waits for that, or bound, since indices may shift."""
        while not self._stopped.is_set():
            try:
                events = SystemEvents()
            except nvml.NVMLError as failure:
                effect = "to unbind a GPU this daemon has to be stopped"
                log.info("nvml.no_system_events", cause=str(failure), effect=effect)
                return
            event = events.wait(self._stopped)
            events.close()
            if event is not None:
                self._let_go(*event)

    def _let_go(self, event: str, address: str) -> None:
        log.info("driver.released", cause=f"the driver announces the {event} of a GPU", pci=address)
        before = unbind.bound(self._gpus)
        session, self._session, self._trouble = self._session, None, None
        if session is not None and not session.end(_PATIENCE):
            log.warning("driver.released", cause="a driver call does not return", effect="it is left to itself")
        self._library.release()
        if event == "unbind":
            unbind.wait_until_unbound(self._gpus, before, _UNBIND_WITHIN, self._stopped)
        while self._session is None and not self._stopped.is_set():
            try:
                self._begin()
            except DriverError as failure:
                self._trouble = failure
                self._stopped.wait(_TRY_AGAIN)
