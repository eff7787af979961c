"""What runs between nvmlInit and nvmlShutdown: a worker for each GPU, the wait for events, and a look at the count."""

from __future__ import annotations

import time
from threading import Event, Thread

from palegreen.exporter.nvml.binding import DriverError, Library
from palegreen.exporter.nvml.events import Events
from palegreen.exporter.nvml.known import Known
from palegreen.exporter.nvml.worker import Pace, Worker

_COUNT_EVERY = 5.0  # seconds between two looks at how many GPUs there are


class Session:
    """Begins at once with `count` GPUs; a session that has ended is not used again.

    `present` is the number of GPUs, None while the driver does not tell; `trouble` says why.
    """

    def __init__(self, library: Library, count: int, events: Events, known: Known, pace: Pace) -> None:
        self._library = library
        self._events = events
        self._known = known
        self._pace = pace
        self._stopped = Event()
        self.workers: tuple[Worker, ...] = ()
        self.present: int | None = None
        self.trouble: DriverError | None = None
        events.start()
        self._grow(count)
        self._counting = Thread(target=self._watch_count, name="gpu count", daemon=True)
        self._counting.start()

    def stop(self) -> None:
        """Ask all threads to end; a driver call under way is left to itself."""
        self._stopped.set()
        self._events.stop()
        for worker in self.workers:
            worker.stop()

    def end(self, seconds: float) -> bool:
        """Stop, and wait at most so long for every thread to be out of the driver; whether all of them are."""
        self.stop()
        deadline = time.monotonic() + seconds
        joins = [*(worker.join for worker in self.workers), self._events.join]  # workers use the event set
        ended = [join(max(deadline - time.monotonic(), 0.0)) for join in joins]
        self._counting.join(max(deadline - time.monotonic(), 0.0))
        return all(ended) and not self._counting.is_alive()

    def _watch_count(self) -> None:
        """In a thread of its own: even the count can hang when the driver is stuck."""
        while not self._stopped.wait(_COUNT_EVERY):
            try:
                count = self._library.count()
            except DriverError as failure:
                self.present, self.trouble = None, failure
                continue
            if not self._stopped.is_set():
                self._grow(count)

    def _grow(self, count: int) -> None:
        """A worker for each index ever seen: a GPU that returns is found by the one that had it."""
        self.present, self.trouble = count, None
        more = range(len(self.workers), count)
        self.workers += tuple(Worker(self._library, index, self._events, self._known, self._pace) for index in more)
