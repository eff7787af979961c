"""Counts that grow as things happen: counters, gauges and histograms of declared metrics, gathered when asked.

The number of label sets of one metric is bounded; what comes after is counted under `_other_` in each label whose
values come from outside, and `palegreen_label_overflow_total` says so.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from threading import Lock

from palegreen.catalogue.metrics import metrics
from palegreen.runtime.exposition import Collected, Exemplar, Readings

OTHER = "_other_"
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
        limit: most label sets of one metric.
        free: names of the labels whose values come from outside.
    """

    def __init__(
        self,
        common: Sequence[str] = (),
        buckets: Mapping[str, Sequence[float]] | None = None,
        *,
        limit: int = 500,
        free: frozenset[str] = frozenset(),
    ) -> None:
        self._common = tuple(common)
        self._buckets = {name: tuple(bounds) for name, bounds in (buckets or {}).items()}
        self._limit = limit
        self._free = free
        self._values: dict[str, dict[tuple[str, ...], float]] = {}
        self._histograms: dict[str, dict[tuple[str, ...], _Histogram]] = {}
        self._overflows: dict[str, int] = {}
        self._lock = Lock()

    def count(self, name: str, *labels: str, by: float = 1.0) -> None:
        """Add to a counter."""
        with self._lock:
            series = self._values.setdefault(name, {})
            key = self._key(name, series, labels)
            series[key] = series.get(key, 0.0) + by

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        with self._lock:
            series = self._values.setdefault(name, {})
            series[self._key(name, series, labels)] = value

    def observe(self, name: str, value: float, *labels: str, exemplar: Exemplar | None = None) -> None:
        """Add one observation to a histogram."""
        bounds = self._buckets[name]
        at = bisect_left(bounds, value)
        with self._lock:
            series = self._histograms.setdefault(name, {})
            key = self._key(name, series, labels)
            held = series.get(key)
            if held is None:
                held = series[key] = _Histogram(len(bounds))
            held.counts[at] += 1
            held.total += value
            if exemplar is not None:
                held.exemplars[at] = exemplar

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

    def _key(self, name: str, series: Mapping[tuple[str, ...], object], labels: tuple[str, ...]) -> tuple[str, ...]:
        if labels in series or len(series) < self._limit:
            return labels
        self._overflows[name] = self._overflows.get(name, 0) + 1
        names = metrics()[name].labels[len(self._common) :]
        return tuple(OTHER if label in self._free else value for label, value in zip(names, labels, strict=True))
