"""The snapshot: every source's readings and health, swapped in whole and rendered before anybody asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from threading import Event, Lock, Thread

import structlog

from palegreen.exporter.source import Runner, State
from palegreen.runtime.exposition import Collected, Exposition, Readings

log = structlog.get_logger()

_AT_MOST_EVERY = 1.0  # seconds between two renderings, however often sources change, while their health does not
_AT_LEAST_EVERY = 1.0  # seconds after which ages and deadlines are looked at again
_ALIVE_WITHIN = 30.0  # seconds
_REMEMBERED = 300.0  # seconds for which a format that was asked for is rendered ahead


class Snapshots:
    """Keeps the current exposition of a changing set of runners.

    `extra` gives the daemon's readings about itself at each rendering.
    """

    def __init__(self, extra: Callable[[], Readings]) -> None:
        self._extra = extra
        self._runners: tuple[Runner, ...] = ()
        self._wake = Event()
        self._urgent = Event()
        self._stopped = Event()
        self._lock = Lock()
        self._asked: dict[tuple[bool, bool], float] = {}
        self._states: tuple[State, ...] = ()
        self._rendered = False
        self._good_at = time.monotonic()
        self._current = Exposition([extra()])
        self._thread = Thread(target=self._run, name="snapshot", daemon=True)

    @property
    def rendered(self) -> bool:
        """Whether the sources have been looked at and what was seen is shown."""
        return self._rendered

    @property
    def stuck(self) -> bool:
        """Whether rendering has failed, or not come to its end, for so long that a restart is the better choice."""
        return time.monotonic() - self._good_at > _ALIVE_WITHIN

    @property
    def states(self) -> tuple[State, ...]:
        """Health of every source as of the current exposition."""
        return self._states

    def use(self, runners: Iterable[Runner]) -> None:
        """Show these runners from now on."""
        self._runners = tuple(runners)
        self.changed()

    def changed(self, health: bool = True) -> None:
        """Something was read: render again within a second, or at once if the health of a source changed."""
        if health:
            self._urgent.set()
        self._wake.set()

    def start(self) -> None:
        """Begin to render in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self.changed()

    def body(self, openmetrics: bool, gzipped: bool) -> bytes:
        """The current exposition; the same format is rendered ahead for a while."""
        self._asked[openmetrics, gzipped] = time.monotonic()
        return self._current.body(openmetrics=openmetrics, gzipped=gzipped)

    def refresh(self) -> None:
        """Render the present state now."""
        with self._lock:
            states = tuple(runner.state() for runner in self._runners)
            exposition = Exposition([*(state.readings for state in states), _health(states), self._extra()])
            recent = time.monotonic() - _REMEMBERED
            exposition.prepare([variant for variant, asked in list(self._asked.items()) if asked > recent])
            self._states, self._current = states, exposition
            self._rendered, self._good_at = True, time.monotonic()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopped.is_set():
            self._wake.wait(_AT_LEAST_EVERY)
            self._wake.clear()
            self._urgent.clear()
            try:
                self.refresh()
            except Exception:
                log.exception("snapshot.defect", effect="nothing is shown until it is over")
                self._current, self._rendered = Exposition([]), False
            # From due to due, not from end to end: a phase that drifts past a scrape's falsifies a window of rate().
            now = time.monotonic()
            if now >= due:
                due = max(due + _AT_MOST_EVERY, now)
            self._urgent.wait(due - now)


def _health(states: Sequence[State]) -> Readings:
    collected = Collected()
    for state in states:
        about = (state.name, state.target)
        collected.add("palegreen_source_up", state.up, *about)
        collected.add("palegreen_source_duration_seconds", state.duration, *about)
        collected.add("palegreen_source_errors_total", state.errors, *about)
        if state.age is not None:
            collected.add("palegreen_source_sample_age_seconds", state.age, *about)
    return collected.readings()
