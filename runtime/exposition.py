"""Readings and their exposition: Prometheus text 0.0.4 and OpenMetrics 1.0.

A sample line is the same in both formats, so it is rendered once, when it is read; an exposition only joins lines
under their headers. Whatever is added must be declared in the catalogue.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from math import isfinite, isnan
from threading import Lock
from types import MappingProxyType
from typing import NamedTuple

from palegreen.catalogue.metrics import Metric, metrics

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Exemplar(NamedTuple):
    """One observation that stands for those of its bucket, with the trace it was part of; `time` is epoch seconds."""

    trace_id: str
    value: float
    time: float

    def __str__(self) -> str:
        return f' # {{trace_id="{_escaped(self.trace_id)}"}} {number(self.value)} {self.time:.3f}'


class Readings:
    """What one collection found: sample lines by metric. Immutable.

    Those that fill gaps give way, by metric and value of its first label, to whatever else is shown beside them.
    Lines with exemplars are for OpenMetrics alone, so such metrics have lines of their own for it.
    """

    __slots__ = ("fills_gaps", "lines", "openmetrics")

    def __init__(
        self, lines: Mapping[str, str], *, openmetrics: Mapping[str, str] | None = None, fills_gaps: bool = False
    ) -> None:
        self.lines = MappingProxyType(dict(lines))
        self.openmetrics = MappingProxyType(dict(openmetrics or {}))
        self.fills_gaps = fills_gaps


NOTHING = Readings({})


class Collected:
    """Gathers samples and freezes them into Readings.

    `common` are the values of the first labels of every metric added, in the catalogue's order.
    """

    def __init__(self, *common: str) -> None:
        self._common = common
        self._lines: dict[str, list[str]] = {}
        self._openmetrics: dict[str, list[str]] = {}  # of metrics with exemplars

    def add(self, name: str, value: float, *labels: str) -> None:
        """Add one sample; `labels` are the values of the labels after the common ones.

        Raises KeyError for an undeclared metric and ValueError for a wrong number of labels.
        """
        text = _labels(metrics()[name].labels, self._common + labels)
        self._lines.setdefault(name, []).append(f"{name}{text} {number(value)}\n")

    def histogram(
        self,
        name: str,
        buckets: Iterable[tuple[float, float]],
        total: float,
        count: float,
        *labels: str,
        exemplars: Mapping[int, Exemplar] | None = None,
    ) -> None:
        """Add one histogram: cumulative counts by upper bound (+Inf last), sum and count of the observations.

        `exemplars` are those of buckets by position.
        """
        declared, values = metrics()[name].labels, self._common + labels
        with_le, text = (*declared, "le"), _labels(declared, values)
        lines = self._lines.setdefault(name, [])
        marked = list(lines) if exemplars and name not in self._openmetrics else self._openmetrics.get(name)
        for at, (bound, cumulative) in enumerate(buckets):
            line = f"{name}_bucket{_labels(with_le, (*values, number(bound)))} {number(cumulative)}"
            lines.append(f"{line}\n")
            if marked is not None:
                marked.append(f"{line}{exemplars[at]}\n" if exemplars and at in exemplars else f"{line}\n")
        lines.append(f"{name}_sum{text} {number(total)}\n{name}_count{text} {number(count)}\n")
        if marked is not None:
            marked.append(lines[-1])
            self._openmetrics[name] = marked

    def include(self, readings: Readings) -> None:
        """Add all of another collection."""
        for name, lines in readings.lines.items():
            mine = self._lines.setdefault(name, [])
            if name in readings.openmetrics or name in self._openmetrics:
                marked = self._openmetrics.setdefault(name, list(mine))
                marked.append(readings.openmetrics.get(name, lines))
            mine.append(lines)

    def readings(self, *, fills_gaps: bool = False) -> Readings:
        """What was gathered so far, frozen."""
        lines = {name: "".join(lines) for name, lines in self._lines.items()}
        openmetrics = {name: "".join(lines) for name, lines in self._openmetrics.items()}
        return Readings(lines, openmetrics=openmetrics, fills_gaps=fills_gaps)


class Exposition:
    """One state of all readings. A body is rendered at its first use, or ahead of it by `prepare`, and kept."""

    def __init__(self, readings: Sequence[Readings]) -> None:
        self._readings = [each for each in readings if not each.fills_gaps]
        self._fillers = [each for each in readings if each.fills_gaps]
        self._bodies: dict[tuple[bool, bool], bytes] = {}
        self._lock = Lock()

    def body(self, *, openmetrics: bool = False, gzipped: bool = False) -> bytes:
        """The whole exposition in one format and encoding."""
        with self._lock:
            return self._body(openmetrics, gzipped)

    def prepare(self, variants: Iterable[tuple[bool, bool]]) -> None:
        """Render `(openmetrics, gzipped)` variants now, so that no scrape has to."""
        for openmetrics, gzipped in variants:
            self.body(openmetrics=openmetrics, gzipped=gzipped)

    def _body(self, openmetrics: bool, gzipped: bool) -> bytes:
        key = (openmetrics, gzipped)
        if key not in self._bodies:
            self._bodies[key] = (
                gzip.compress(self._body(openmetrics, False), compresslevel=1, mtime=0)
                if gzipped
                else self._render(openmetrics)
            )
        return self._bodies[key]

    def _render(self, openmetrics: bool) -> bytes:
        parts: list[str] = []
        for name, metric in metrics().items():
            lines = [
                readings.openmetrics.get(name, readings.lines[name]) if openmetrics else readings.lines[name]
                for readings in self._readings
                if name in readings.lines
            ]
            for filler in self._fillers:
                if name in filler.lines:
                    lines.append(_missing(filler.lines[name], lines))
            if any(lines):
                parts.append(_header(metric, openmetrics))
                parts += lines
        if openmetrics:
            parts.append("# EOF\n")
        return "".join(parts).encode(errors="replace")  # JSON can hold half a surrogate pair, UTF-8 cannot


def _missing(lines: str, shown: Sequence[str]) -> str:
    """Those lines whose first label has a value of which nothing is shown."""
    if not any(shown):
        return lines
    taken = {_first_label(line) for text in shown for line in text.splitlines()}
    return "".join(line for line in lines.splitlines(keepends=True) if _first_label(line) not in taken)


def _first_label(line: str) -> str:
    return line.partition('",')[0].partition('"}')[0]


def negotiate(accept: str, accept_encoding: str) -> tuple[bool, bool]:
    """`(openmetrics, gzipped)` that a client prefers, by its Accept and Accept-Encoding headers (RFC 9110)."""
    openmetrics = _quality(accept, "application/openmetrics-text")
    text = max(_quality(accept, "text/plain"), _quality(accept, "text/*"), _quality(accept, "*/*"))
    return openmetrics > 0 and openmetrics >= text, _quality(accept_encoding, "gzip") > 0


def number(value: float) -> str:
    """A float as both formats spell it."""
    if isfinite(value):
        return repr(float(value))
    return "NaN" if isnan(value) else "+Inf" if value > 0 else "-Inf"


def _quality(header: str, wanted: str) -> float:
    for item in header.split(","):
        token, *parameters = (part.strip().lower() for part in item.split(";"))
        if token == wanted:
            try:
                return next((float(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
            except ValueError:
                return 0.0
    return 0.0


@lru_cache(maxsize=32768)
def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    if not names and not values:
        return ""
    pairs = zip(names, values, strict=True)
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


@cache
def _header(metric: Metric, openmetrics: bool) -> str:
    name = metric.name.removesuffix("_total") if openmetrics and metric.kind == "counter" else metric.name
    text = _escaped(metric.help) if openmetrics else metric.help.replace("\\", "\\\\").replace("\n", "\\n")
    return f"# HELP {name} {text}\n# TYPE {name} {metric.exposed_type}\n"
