"""One metrics page of an engine: text 0.0.4 or OpenMetrics 1.0, parsed strictly.

Only the samples that a mapping reads are kept, but every line is checked: a page that is cut or broken anywhere is
refused whole (`PageError`), since half a page is a guess. Sources: the Prometheus text exposition format 0.0.4 and
the OpenMetrics 1.0 specification.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import StringIO
from itertools import pairwise
from math import inf, isnan

_SERIES = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)[ \t]*")
_LABEL = re.compile(r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)"[ \t]*(,[ \t]*|(?=\}))')
_REST = re.compile(r"[ \t]*(\S+)(?:[ \t]+(-?[0-9][0-9.eE+-]*))?[ \t]*(?:#[ \t]*\{.*)?$")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", '"': '"', "\\": "\\"}
_TYPES = {
    "counter", "gauge", "histogram", "summary", "untyped", "unknown", "info", "stateset", "gaugehistogram"
}  # fmt: skip
_PARTS = ("_bucket", "_sum", "_count")
_MOST = 20_000  # series of one page that are read; a node's Ray agent or a Triton with 100 models has a third
_REMEMBERED = 50_000  # series of one page; a page that is all noise must not fill the memory


class PageError(Exception):
    """The page cannot be believed; the message is one line that says why and where."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Cumulative counts by upper bound (ascending, the last is +Inf), sum and count."""

    buckets: tuple[tuple[float, float], ...]
    sum: float
    count: float


@dataclass(frozen=True, slots=True)
class Row:
    """One series of a page: native labels and a number, or a whole histogram."""

    labels: dict[str, str]
    value: float | Histogram


@dataclass(frozen=True, slots=True)
class Page:
    """Wanted rows by native name; `types` maps those names to their declared type. `families` counts what was seen.

    A `listing` is a page of what is loaded, which may be nothing.
    """

    rows: dict[str, list[Row]]
    types: dict[str, str]
    families: int
    listing: bool = False


@dataclass(frozen=True, slots=True)
class _Series:
    """A series as first seen; `key` is the same for any order of its labels."""

    name: str
    labels: dict[str, str]
    key: tuple[str, frozenset[tuple[str, str]]]


@dataclass(slots=True)
class PageParser:
    """Parses successive pages of one engine, remembering the series of the last one.

    A page repeats the same few hundred series each time; a remembered one costs a dictionary look-up and a float.
    `wanted(name)` says whether any mapping reads a sample name or histogram family, `may_be_nan(name)` whether NaN
    there means absent.
    """

    wanted: Callable[[str], bool]
    may_be_nan: Callable[[str], bool] = lambda _name: False
    _known: dict[str, _Series | None] = field(default_factory=dict)

    def parse(self, text: str, *, openmetrics: bool = False) -> Page:
        """Parse a whole page.

        Raises PageError for anything that is not the format, a page cut short, and, among the wanted samples, a
        missing or contradicting TYPE, a series given twice, NaN, or a histogram that is not whole.
        """
        if not text.strip():
            raise PageError("empty page")
        if not text.endswith("\n"):
            raise PageError("cut short: the last line does not end with a line feed")
        types: dict[str, str] = {}
        samples: dict[str, list[tuple[_Series, float]]] = {}
        seen: dict[str, _Series | None] = {}
        keys: set[tuple[str, frozenset[tuple[str, str]]]] = set()
        ended = False
        for number, ended_line in enumerate(StringIO(text), 1):
            line = ended_line[:-1]
            if not line or line.isspace():
                continue
            if line[0] == "#":
                ended = ended or line == "# EOF"
                _header(line, number, types)
                continue
            head, _, last = line.rpartition(" ")
            try:
                series, value = self._known[head], _float(last)
            except (KeyError, ValueError):
                head, series, value = self._read(line, number)
            if len(seen) < _REMEMBERED:
                seen[head] = series
            if series is None:
                continue
            if isnan(value) and self.may_be_nan(series.name):
                continue
            if isnan(value):
                raise PageError(f"line {number}: {series.name} is NaN")
            if series.key in keys:
                raise PageError(f"line {number}: series given twice: {_shortened(head)}")
            keys.add(series.key)
            if len(keys) > _MOST:
                raise PageError(f"more than {_MOST} series that a mapping reads")
            samples.setdefault(series.name, []).append((series, value))
        if openmetrics and not ended:
            raise PageError("cut short: OpenMetrics without its closing # EOF")
        self._known = seen
        return _assemble(samples, types, self.wanted)

    def _read(self, line: str, number: int) -> tuple[str, _Series | None, float]:
        """Take a line apart that was not seen before, or that carries a timestamp or an exemplar."""
        match = _SERIES.match(line)
        if not match:
            raise PageError(f"line {number}: no metric name: {_shortened(line)}")
        name, end = match[1], match.end()
        labels: dict[str, str] = {}
        if line[end : end + 1] == "{":
            end += 1
            while line[end : end + 1] != "}":
                pair = _LABEL.match(line, end)
                if not pair:
                    raise PageError(f"line {number}: broken labels: {_shortened(line)}")
                if pair[1] in labels:
                    raise PageError(f"line {number}: label {pair[1]} given twice: {_shortened(line)}")
                labels[pair[1]] = _unescape(pair[2])
                end = pair.end()
            end += 1
        head = line[:end].rstrip()
        rest = _REST.match(line, end)
        try:
            value = _float(rest[1]) if rest else None
        except ValueError:
            value = None
        if value is None:
            raise PageError(f"line {number}: no number: {_shortened(line)}")
        if not (self.wanted(name) or any(name.endswith(p) and self.wanted(name.removesuffix(p)) for p in _PARTS)):
            return head, None, value
        return head, _Series(name, labels, (name, frozenset(labels.items()))), value


def decoded(body: bytes) -> str:
    """A page's text with line feeds alone; raises PageError for bytes that are not UTF-8."""
    try:
        return body.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as failure:
        raise PageError(f"not text: byte {failure.start} is not UTF-8") from None


def _header(line: str, number: int, types: dict[str, str]) -> None:
    parts = line.split(None, 3)
    if len(parts) < 2 or parts[1] != "TYPE":
        return
    if len(parts) != 4 or parts[3].strip() not in _TYPES:
        raise PageError(f"line {number}: broken TYPE: {_shortened(line)}")
    name, kind = parts[2], parts[3].strip()
    if types.setdefault(name, kind) != kind:
        raise PageError(f"line {number}: {name} is declared {types[name]} and {kind}")


def _assemble(
    samples: dict[str, list[tuple[_Series, float]]], types: dict[str, str], wanted: Callable[[str], bool]
) -> Page:
    rows: dict[str, list[Row]] = {}
    kinds: dict[str, str] = {}
    parts: dict[str, dict[str, list[tuple[_Series, float]]]] = {}
    for name, listed in samples.items():
        family, kind = _family(name, types)
        if kind == "histogram" and name not in types:
            if wanted(family):
                parts.setdefault(family, {})[name.removeprefix(family)] = listed
        elif kind == "untyped" and (base := _untyped_part(name, types)) and wanted(base):
            parts.setdefault(base, {})[name.removeprefix(base)] = listed
        elif kind == "":  # _created of a declared family
            continue
        kinds[name] = "counter" if kind in ("histogram", "summary") else kind
        if kind == "counter" and not all(0 <= value < inf for _, value in listed):
            raise PageError(f"counter {name} is negative or infinite")
        rows[name] = [Row(series.labels, value) for series, value in listed]
    for family, part in parts.items():
        kinds[family] = "histogram"
        rows[family] = list(_histograms(family, part))
    return Page(rows=rows, types=kinds, families=len(types))


def _family(name: str, types: dict[str, str]) -> tuple[str, str]:
    """Family and declared type of a sample name; PageError where nothing declares it."""
    if name in types:
        return name, types[name]
    for suffix in ("_total", *_PARTS, "_info", "_created"):
        family = name.removesuffix(suffix)
        kind = types.get(family) if family != name else None
        if kind is None:
            continue
        if suffix == "_created":
            return family, ""
        if suffix in _PARTS:
            if kind in ("histogram", "summary"):
                return family, kind
        elif kind in ("counter", "info", "unknown", "untyped"):
            return family, "counter" if suffix == "_total" else "gauge"
    raise PageError(f"{name} has no TYPE")


def _untyped_part(name: str, types: dict[str, str]) -> str:
    """The histogram a sample belongs to where /federate has declared each part an untyped family of its own."""
    base = next((name.removesuffix(part) for part in _PARTS if name.endswith(part)), "")
    return base if base and types.get(base + "_bucket") == "untyped" else ""


def _histograms(family: str, part: dict[str, list[tuple[_Series, float]]]) -> Iterator[Row]:
    grouped: dict[frozenset[tuple[str, str]], list[tuple[float, float]]] = {}
    for series, value in part.get("_bucket", ()):
        try:
            bound = _float(series.labels["le"])
        except (KeyError, ValueError):
            bound = float("nan")
        if isnan(bound):
            raise PageError(f"{family}_bucket without a numeric le label")
        labels = frozenset(item for item in series.labels.items() if item[0] != "le")
        grouped.setdefault(labels, []).append((bound, value))
    sums = {series.key[1]: value for series, value in part.get("_sum", ())}
    counts = {series.key[1]: value for series, value in part.get("_count", ())}
    for labels in sorted(set(grouped) | set(sums) | set(counts), key=sorted):
        buckets = sorted(grouped.get(labels, ()))
        if not buckets or buckets[-1][0] != float("inf") or labels not in sums or labels not in counts:
            raise PageError(f"histogram {family} is not whole: it needs a +Inf bucket, _sum and _count")
        if any(bound == following for (bound, _), (following, _) in pairwise(buckets)):
            raise PageError(f"histogram {family} has a bucket that is given twice")
        if any(value > following for (_, value), (_, following) in pairwise(buckets)) or buckets[0][1] < 0:
            raise PageError(f"histogram {family} has buckets that fall")
        # _count and the +Inf bucket are the same number; where they were not written at one moment, the bucket holds
        yield Row(dict(labels), Histogram(tuple(buckets), sums[labels], buckets[-1][1]))


def _float(text: str) -> float:
    """A number as the formats write it, which is less than Python reads (`1_000`, digits of other scripts)."""
    if "_" in text or not text.isascii():
        raise ValueError(text)
    return float(text)


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda m: _ESCAPED.get(m[1], m[0]), text) if "\\" in text else text


def _shortened(line: str) -> str:
    return repr(line if len(line) <= 120 else line[:117] + "...")
