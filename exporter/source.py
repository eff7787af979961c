"""A source, and the thread that runs it: its own pace, its own deadline, its own health.

A source that fails or hangs loses its own series and nothing else (as in Prometheus' node_exporter, where each
collector reports its own success and duration).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Protocol
from zlib import crc32

import structlog

from palegreen.runtime.exposition import NOTHING, Readings

log = structlog.get_logger()

_NUMBERS = re.compile(r"(?<!HTTP )\b\d+")  # a body cut after another number of bytes is no news; another status is


class SourceError(Exception):
    """A reading failed; the message is one line. `readings` is what can be said all the same."""

    def __init__(self, message: str, readings: Readings = NOTHING) -> None:
        super().__init__(message)
        self.readings = readings


class Source(Protocol):
    """One thing that is read. `interval` and `deadline` are in seconds."""

    name: str
    target: str
    interval: float
    deadline: float

    def collect(self) -> Readings:
        """Read once; raises SourceError when there is nothing to believe."""

    def close(self) -> None:
        """Let go of what is held; a reading may still be under way."""

    def describe(self) -> str:
        """What it is, for the status page."""


@dataclass(frozen=True, slots=True)
class State:
    """Health and data of a source at one moment; `age` is in seconds, None without readings."""

    name: str
    target: str
    up: bool
    readings: Readings
    duration: float
    age: float | None
    errors: int
    error: str
    tried: bool
    about: str


@dataclass(slots=True)
class _Last:
    """The latest reading that ended."""

    up: bool = False
    readings: Readings = NOTHING
    duration: float = 0.0
    ended: float | None = None
    error: str = "not read yet"


class Runner:
    """Reads a source again and again in a thread of its own until stopped.

    `changed` is called after each reading, with whether the health is another than before; `clock` counts seconds.
    """

    def __init__(
        self, source: Source, changed: Callable[[bool], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.source = source
        self._changed = changed
        self._clock = clock
        self._lock = Lock()
        self._last = _Last()
        self._began: float | None = None
        self._overdue = False
        self._errors = 0
        self._stopped = Event()
        self._thread = Thread(target=self._run, name=f"{source.name} {source.target}", daemon=True)

    def start(self) -> None:
        """Begin reading."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; it is not waited for, since a call into a driver may never return."""
        self._stopped.set()
        self.source.close()

    def state(self) -> State:
        """Health and data now. A reading past its deadline counts as failed while it still hangs."""
        with self._lock:
            now, last = self._clock(), self._last
            running = now - self._began if self._began is not None else None
            if running is not None and running > self.source.deadline and not self._overdue:
                self._overdue = True
                self._errors += 1
                last.up, last.readings, last.ended = False, NOTHING, None
                self._report(False, f"no answer within {self.source.deadline:g} s", last.error)
            return State(
                name=self.source.name,
                target=self.source.target,
                up=last.up,
                readings=last.readings,
                duration=running if running is not None and self._overdue else last.duration,
                age=now - last.ended if last.up and last.ended is not None else None,
                errors=self._errors,
                error=last.error,
                tried=last.ended is not None or last.error != "not read yet",
                about=self.source.describe(),
            )

    def _run(self) -> None:
        # The first wait is shorter by a share that depends on the target, as Prometheus offsets its scrapes: sources
        # that all compute at once hold up whoever is being answered.
        share = crc32(f"{self.source.name} {self.source.target}".encode()) / 2**32
        due = self._clock() - share * self.source.interval
        while not self._stopped.is_set():
            self.read_once()
            due = max(due + self.source.interval, self._clock())
            self._stopped.wait(due - self._clock())

    def read_once(self) -> None:
        """One reading, in the calling thread."""
        began = self._clock()
        with self._lock:
            self._began, self._overdue = began, False
        up, error, readings = True, "", NOTHING
        try:
            readings = self.source.collect()
        except SourceError as failure:
            up, error, readings = False, str(failure), failure.readings
        except Exception as failure:
            up, error = False, f"{type(failure).__name__}: {failure}"
            log.exception("source.defect", source=self.source.name, target=self.source.target)
        with self._lock:
            ended = self._clock()
            before, self._began = self._last, None
            self._errors += not up and not self._overdue  # one that was overdue has been counted
            self._last = _Last(up, readings, ended - began, ended, error)
            if not self._stopped.is_set():
                self._report(up, error, before.error)
        self._changed(up != before.up or before.ended is None)

    def _report(self, up: bool, error: str, before: str) -> None:
        """One line when the health changes, none while it stays as it is, whatever numbers the cause holds."""
        self._last.error = error
        if _NUMBERS.sub("", error) == _NUMBERS.sub("", before):
            return
        about = {"source": self.source.name, "target": self.source.target}
        if up:
            log.info("source.up", **about)
        else:
            log.warning("source.down", **about, cause=error)
