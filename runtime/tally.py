"""Counts that grow as things happen: counters, gauges and histograms of declared metrics, gathered when asked.

Labels whose values come from outside are bounded: so many values each, what comes after is counted as `_other_`, and
`palegreen_label_overflow_total` says so. A value that has been seen keeps its series whatever comes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from threading import Lock

from palegreen.catalogue.metrics import metrics
from palegreen.runtime.exposition import Collected, Exemplar, Readings

OTHER = "_other_"
LONGEST = 128
"""Characters of a label's value from outside."""
INF = float("inf")


class _Histogram:
    __slots__ = ("counts", "exemplars", "total")

    def __init__(self, size: int) -> None:
        self.counts = [0] * (size + 1)
        self.total = 0.0
        self.exemplars: dict[int, Exemplar] = {}


class Tally:
    """Counters, gauges and histograms by metric and label values; safe to use from several threads.

    Args:
        common: values of the first labels of every metric; they are not given again.
        buckets: upper bounds of each histogram, ascending, without +Inf.
        free: names of the labels whose values come from outside.
        limit: most values of each of them.
    """

    def __init__(
        self,
        common: Sequence[str] = (),
        buckets: Mapping[str, Sequence[float]] | None = None,
        *,
        free: frozenset[str] = frozenset(),
        limit: int = 50,
    ) -> None:
        self._common = tuple(common)
        self._buckets = {name: tuple(bounds) for name, bounds in (buckets or {}).items()}
        self._seen: dict[str, set[str]] = {label: {""} for label in free}  # the values that are shown
        self._limit = limit
        self._places: dict[str, tuple[tuple[int, str], ...]] = {}  # of a metric: where its free labels are
        self._values: dict[str, dict[tuple[str, ...], float]] = {}
        self._histograms: dict[str, dict[tuple[str, ...], _Histogram]] = {}
        self._overflows: dict[str, int] = {}
        self._lock = Lock()

    def count(self, name: str, *labels: str, by: float = 1.0) -> None:
        """Add to a counter."""
        with self._lock:
            series, key = self._values.setdefault(name, {}), self._key(name, labels)
            series[key] = series.get(key, 0.0) + by

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        with self._lock:
            self._values.setdefault(name, {})[self._key(name, labels)] = value

    def observe(self, name: str, value: float, *labels: str, exemplar: Exemplar | None = None) -> None:
        """Add one observation to a histogram."""
        bounds = self._buckets[name]
        at = bisect_left(bounds, value)
        with self._lock:
            series, key = self._histograms.setdefault(name, {}), self._key(name, labels)
            held = series.get(key)
            if held is None:
                held = series[key] = _Histogram(len(bounds))
            held.counts[at] += 1
            held.total += value
            if exemplar is not None:
                held.exemplars[at] = exemplar

    def shown(self, name: str, *labels: str) -> tuple[str, ...]:
        """The first labels of a metric as they would be shown, within the bounds."""
        with self._lock:
            return self._key(name, labels)

    def readings(self) -> Readings:
        """Everything so far."""
        collected, plain = Collected(*self._common), Collected()
        with self._lock:
            for name, values in self._values.items():
                for labels, value in values.items():
                    collected.add(name, value, *labels)
            for name, histograms in self._histograms.items():
                for labels, held in histograms.items():
                    self._gather(collected, name, labels, held)
            for name, times in self._overflows.items():
                plain.add("palegreen_label_overflow_total", times, name)
        collected.include(plain.readings())
        return collected.readings()

    def _gather(self, collected: Collected, name: str, labels: tuple[str, ...], held: _Histogram) -> None:
        cumulative, buckets = 0, []
        for bound, count in zip((*self._buckets[name], INF), held.counts, strict=True):
            cumulative += count
            buckets.append((bound, float(cumulative)))
        collected.histogram(name, buckets, held.total, cumulative, *labels, exemplars=held.exemplars)

    def _key(self, name: str, labels: tuple[str, ...]) -> tuple[str, ...]:
        places = self._places.get(name)
        if places is None:
            names = metrics()[name].labels[len(self._common) :]
            places = self._places[name] = tuple((at, label) for at, label in enumerate(names) if label in self._seen)
        for at, label in places:
            if labels[at] not in self._seen[label]:
                labels = (*labels[:at], self._shown(name, label, labels[at]), *labels[at + 1 :])
        return labels

    def _shown(self, name: str, label: str, value: str) -> str:
        seen = self._seen[label]
        tidy = "".join(c if c.isprintable() else " " for c in value[:LONGEST])
        if tidy in seen:
            return tidy
        if len(seen) > self._limit:  # one of them is the empty one
            self._overflows[name] = self._overflows.get(name, 0) + 1
            return OTHER
        seen.add(tidy)
        return tidy
