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

from palegreen.catalogue.metrics import Metric, metrics

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Readings:
    """What one collection found: sample lines by metric. Immutable.

    Those that fill gaps give way, by metric and value of its first label, to whatever else is shown beside them.
    """

    __slots__ = ("fills_gaps", "lines")

    def __init__(self, lines: Mapping[str, str], *, fills_gaps: bool = False) -> None:
        self.lines = MappingProxyType(dict(lines))
        self.fills_gaps = fills_gaps


NOTHING = Readings({})


class Collected:
    """Gathers samples and freezes them into Readings.

    `common` are the values of the first labels of every metric added, in the catalogue's order.
    """

    def __init__(self, *common: str) -> None:
        self._common = common
        self._lines: dict[str, list[str]] = {}

    def add(self, name: str, value: float, *labels: str) -> None:
        """Add one sample; `labels` are the values of the labels after the common ones.

        Raises KeyError for an undeclared metric and ValueError for a wrong number of labels.
        """
        text = _labels(metrics()[name].labels, self._common + labels)
        self._lines.setdefault(name, []).append(f"{name}{text} {number(value)}\n")

    def histogram(
        self, name: str, buckets: Iterable[tuple[float, float]], total: float, count: float, *labels: str
    ) -> None:
        """Add one histogram: cumulative counts by upper bound (+Inf last), sum and count of the observations."""
        declared, values = metrics()[name].labels, self._common + labels
        with_le, text = (*declared, "le"), _labels(declared, values)
        lines = self._lines.setdefault(name, [])
        for bound, cumulative in buckets:
            lines.append(f"{name}_bucket{_labels(with_le, (*values, number(bound)))} {number(cumulative)}\n")
        lines.append(f"{name}_sum{text} {number(total)}\n{name}_count{text} {number(count)}\n")

    def include(self, readings: Readings) -> None:
        """Add all of another collection."""
        for name, lines in readings.lines.items():
            self._lines.setdefault(name, []).append(lines)

    def readings(self, *, fills_gaps: bool = False) -> Readings:
        """What was gathered so far, frozen."""
        lines = {name: "".join(lines) for name, lines in self._lines.items()}
        return Readings(lines, fills_gaps=fills_gaps)


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
            lines = [readings.lines[name] for readings in self._readings if name in readings.lines]
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
