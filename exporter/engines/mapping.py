"""Native rows of a page -> canonical rows, as the mapping files say.

Absent is not zero: a metric whose rules find no row is left out and reported as absent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import isfinite

from palegreen.catalogue.engines import Engine, Fold, LabelSource, Operand, Quality, Ranks, Rule
from palegreen.catalogue.metrics import metrics
from palegreen.exporter.engines.page import Histogram, Page, PageError, Row

_REMEMBERED = 50_000  # names
_MOST_PAIRS = 1_000_000  # rows times partners of one rule
_MOST_PARTS = 1_000  # names in one label


Value = float | Histogram
Labels = tuple[tuple[str, str], ...]
_Partners = tuple[list[Row], set[str], Callable[[float, float], float]]


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a canonical row is: a model, served by one of the processes behind the port (empty if there is one)."""

    model: str
    instance: str


@dataclass(slots=True)
class Mapped:
    """Canonical rows of one engine on one page, and the quality of each metric by owner."""

    engine: Engine
    rows: dict[str, dict[tuple[Owner, Labels], Value]] = field(default_factory=dict)
    quality: dict[tuple[Owner, str], Quality] = field(default_factory=dict)

    def owners(self) -> list[Owner]:
        """Every model and process that has a row."""
        found = {owner for rows in self.rows.values() for owner, _ in rows}
        return sorted(found, key=lambda owner: (owner.model, owner.instance))


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A canonical row before ranks are folded."""

    owner: Owner
    labels: Labels
    native: Mapping[str, str]
    value: Value


class Mapper:
    """Applies every mapping to a page. `wanted` is for the page's parser."""

    def __init__(self, engines: Iterable[Engine]) -> None:
        self._engines = tuple(engines)
        self._sources = {engine.engine: frozenset(engine.sources()) for engine in self._engines}
        self._renames = {
            engine.engine: [(re.compile(rename.match), rename.to) for rename in engine.rename]
            for engine in self._engines
        }
        self._wanted: dict[str, bool] = {}

    def wanted(self, name: str) -> bool:
        """Whether any mapping reads the native sample or histogram family."""
        if name not in self._wanted:
            if len(self._wanted) > _REMEMBERED:  # an engine that invents names must not fill the memory
                self._wanted.clear()
            self._wanted[name] = any(self._renamed(e, name) in self._sources[e.engine] for e in self._engines)
        return self._wanted[name]

    def may_be_nan(self, name: str) -> bool:
        """Whether an engine is known to print NaN for this native sample at times."""
        return any(name in engine.not_a_number for engine in self._engines)

    def map(self, page: Page, version: str = "", model: str = "") -> list[Mapped]:
        """Every engine recognised on the page, with its canonical rows.

        `version` is what the engine's API says, empty if unknown; `model` names the model where no label does.
        """
        found = [
            self._map_engine(engine, page, version, model)
            for engine in self._engines
            if any(_belongs(engine, name, rows) for name, rows in page.rows.items())
        ]
        found = [mapped for mapped in found if mapped.rows]
        native = [mapped for mapped in found if mapped.engine.yields is None]
        for mapped in found:
            if mapped.engine.yields is not None and native:
                _yield(mapped, native)
        return [mapped for mapped in found if mapped.rows]

    def _renamed(self, engine: Engine, name: str) -> str:
        for pattern, to in self._renames[engine.engine]:
            name = pattern.sub(to, name)
        return name

    def _map_engine(self, engine: Engine, page: Page, version: str, model: str) -> Mapped:
        view: dict[str, list[Row]] = {}
        types: dict[str, str] = {}
        without = engine.recognise.without_labels
        for name, rows in page.rows.items():
            kept = [row for row in rows if not any(row.labels.get(label) for label in without)] if without else rows
            if kept:
                renamed = self._renamed(engine, name)
                view.setdefault(renamed, []).extend(kept)
                types[renamed] = page.types[name]
        owners = _Owners(engine, view, model)
        mapped = Mapped(engine)
        for metric, rules in engine.metrics.items():
            served: set[Owner] = set()  # by an alternative that came before
            for alternative in rules.alternatives():
                usable = [rule for rule in alternative if _applies(rule, metric, version, types)]
                results = [(rule, _fold(engine.ranks, rule.fold, _candidates(rule, view, owners))) for rule in usable]
                _take(mapped, metric, results, served)
                served |= {owner for _, rows in results for owner, _ in rows}
        return mapped


class _Owners:
    """Finds the owner of a native row; a row without a model label belongs to the only model of the page."""

    def __init__(self, engine: Engine, view: dict[str, list[Row]], model: str) -> None:
        self._model_labels = engine.identity.model
        labels = [row.labels for rows in view.values() for row in rows]
        models = {found for each in labels if (found := _first_of(each, self._model_labels))}
        self._several_models = len(models) > 1
        self._model = next(iter(models), model) if not self._several_models else ""
        in_use = (name for name in engine.identity.instance if any(each.get(name) for each in labels))
        self._instance_label = next(in_use, "")
        self._several = len({process for each in labels if (process := each.get(self._instance_label))}) > 1

    def of(self, rule: Rule, row: Row) -> Owner | None:
        """The row's owner; None where it cannot be said which of several models it is."""
        model = _first_of(row.labels, self._model_labels) or self._model
        if not model and self._several_models and not rule.shared:
            return None
        return Owner(model, row.labels.get(self._instance_label, "") if self._several else "")


def _belongs(engine: Engine, name: str, rows: list[Row]) -> bool:
    """Whether a row of that name is this engine's."""
    recognise = engine.recognise
    return (name in recognise.names or name.startswith(tuple(recognise.prefixes))) and any(
        all(row.labels.get(label) for label in recognise.with_labels)
        and not any(row.labels.get(label) for label in recognise.without_labels)
        for row in rows
    )


def _applies(rule: Rule, metric: str, version: str, types: Mapping[str, str]) -> bool:
    """Whether the native type fits (a gauge is never a counter or a histogram) and the version is right.

    KServe's qpext declares what vLLM calls `_total` a gauge, so that suffix speaks louder than the type.
    """
    native, kind = types.get(rule.source), metrics()[metric].kind
    if rule.unless is not None and rule.unless in types:
        return False
    if native is None or (kind == "histogram") != (native == "histogram"):
        return False
    if kind == "counter" and native not in ("counter", "untyped", "unknown") and not rule.source.endswith("_total"):
        return False
    return rule.versions is None or version_matches(version, rule.versions)


def _yield(mapped: Mapped, native: list[Mapped]) -> None:
    """Leave out what the engines beside a wrapper give themselves; models are compared without regard to case."""
    by_model = mapped.engine.yields == "model"
    given = {
        (metric, owner.model.casefold() if by_model else "")
        for other in native
        for metric, rows in other.rows.items()
        for owner, _ in rows
    }
    for metric, rows in list(mapped.rows.items()):
        kept = {
            place: value
            for place, value in rows.items()
            if (metric, place[0].model.casefold() if by_model else "") not in given
        }
        if kept:
            mapped.rows[metric] = kept
        else:
            del mapped.rows[metric]


def _candidates(rule: Rule, view: Mapping[str, list[Row]], owners: _Owners) -> Iterator[_Candidate]:
    rows = _select(rule, view)
    partners = [
        (_select(operand, view), set(rule.where) | set(operand.where), operate)
        for operand, operate in (
            (rule.times, float.__mul__),
            (rule.over, float.__truediv__),
            (rule.minus, float.__sub__),
        )
        if operand is not None
    ]
    if any(len(rows) * len(others) > _MOST_PAIRS for others, _, _ in partners):
        raise PageError(f"{rule.source} has too many series to be computed with")
    if rule.latest and rows:
        newest = max(row.value for row in rows if isinstance(row.value, float))
        rows = [row for row in rows if row.value == newest]
    for row in rows:
        owner, value = owners.of(rule, row), _compute(rule, row, partners)
        if owner is None or value is None:
            continue
        for count, labels in enumerate(_canonical_labels(rule, row)):
            if count > _MOST_PARTS:
                raise PageError(f"{rule.source} lists more than {_MOST_PARTS} names in one label")
            yield _Candidate(owner, labels, row.labels, value)


def _select(operand: Operand, view: Mapping[str, list[Row]]) -> list[Row]:
    rows = [row for row in view.get(operand.source, ()) if _meets(row.labels, operand.where)]
    if operand.value_label is None:
        return rows
    numbers = ((row, _number(row.labels.get(operand.value_label, ""))) for row in rows)
    return [Row(row.labels, number) for row, number in numbers if number is not None]


def _meets(labels: Mapping[str, str], where: Mapping[str, list[str]]) -> bool:
    for label, allowed in where.items():
        value = labels.get(label, "")
        if "!" + value in allowed or (value not in allowed and not all(a.startswith("!") for a in allowed)):
            return False
    return True


def _compute(rule: Rule, row: Row, partners: list[_Partners]) -> Value | None:
    if rule.value is not None:
        return rule.value
    if isinstance(row.value, Histogram):
        return row.value if rule.scale == 1 else _scaled(row.value, rule.scale)
    value = row.value * rule.scale
    for others, picked, operate in partners:
        other = _partner(row, others, picked)
        if other is None or (operate is float.__truediv__ and other == 0):
            return None
        value = operate(value, other)
    return value


def _partner(row: Row, others: list[Row], picked: set[str]) -> float | None:
    """The one value of the rows that agree on every label both carry, but for those that conditions picked."""
    found = {
        other.value
        for other in others
        if all(other.labels.get(k, v) == v for k, v in row.labels.items() if k not in picked)
    }
    value = found.pop() if len(found) == 1 else None
    return value if isinstance(value, float) else None


def _canonical_labels(rule: Rule, row: Row) -> Iterator[Labels]:
    """Label sets of the canonical row: none where a map drops the row, several where a label is split."""
    sets: list[Labels] = [()]
    for label, source in rule.labels.items():
        values = [source] if isinstance(source, str) else _label_values(source, row.labels)
        sets = [(*labels, (label, value)) for labels in sets for value in values]
    return iter(sets)


def _label_values(source: LabelSource, labels: Mapping[str, str]) -> list[str]:
    value = labels.get(source.label, "") or source.default
    if source.split is not None:
        listed = {part.strip() for part in labels.get(source.unless_in or "", "").split(source.split)}
        return [name for part in value.split(source.split) if (name := part.strip()) and name not in listed]
    if source.map is None:
        return [value]
    return next(([to] for pattern, to in source.map.items() if fnmatchcase(value, pattern)), [])


def _fold(ranks: Ranks, fold: Fold, candidates: Iterator[_Candidate]) -> dict[tuple[Owner, Labels], Value]:
    """Keep one of each set of copies, then fold what is left into one row per owner and label set."""
    kept: dict[object, tuple[tuple[object, ...], _Candidate]] = {}
    repeated = {*ranks.copies, *ranks.restarts}
    for candidate in candidates:
        rest = tuple(sorted((k, v) for k, v in candidate.native.items() if k not in repeated))
        rank = (
            *(_rank(candidate.native.get(label, "")) for label in ranks.copies),
            *(-_rank(candidate.native.get(label, "")) for label in ranks.restarts),
        )
        key = (candidate.owner, candidate.labels, rest)
        if key not in kept or rank < kept[key][0]:
            kept[key] = (rank, candidate)
    folded: dict[tuple[Owner, Labels], Value] = {}
    for _, candidate in kept.values():
        place = (candidate.owner, candidate.labels)
        present = folded.get(place)
        folded[place] = candidate.value if present is None else _joined(present, candidate.value, fold)
    return folded


def _joined(a: Value, b: Value, fold: Fold) -> Value:
    if isinstance(a, Histogram) and isinstance(b, Histogram):
        return _added(a, b)
    if isinstance(a, float) and isinstance(b, float):
        return a + b if fold == "sum" else max(a, b) if fold == "max" else min(a, b)
    raise TypeError("a histogram and a number cannot be folded")


def _added(a: Histogram, b: Histogram) -> Histogram:
    """Sum of two histograms at the bounds they share: cumulative counts are exact there and nowhere else."""
    other = dict(b.buckets)
    buckets = tuple((bound, count + other[bound]) for bound, count in a.buckets if bound in other)
    return Histogram(buckets, a.sum + b.sum, a.count + b.count)


def _scaled(histogram: Histogram, factor: float) -> Histogram:
    # twelve digits: 700 ms are 0.7 s, not 0.7000000000000001
    buckets = tuple((float(f"{bound * factor:.12g}"), count) for bound, count in histogram.buckets)
    return Histogram(buckets, histogram.sum * factor, histogram.count)


def _take(
    mapped: Mapped,
    metric: str,
    results: list[tuple[Rule, dict[tuple[Owner, Labels], Value]]],
    served: set[Owner],
) -> None:
    """Add the rows of owners that no earlier alternative has served."""
    order: list[Quality] = ["native", "derived", "proxy"]
    for rule, folded in results:
        for place, value in folded.items():
            if place[0] in served:
                continue
            rows = mapped.rows.setdefault(metric, {})
            rows[place] = value if place not in rows else _joined(rows[place], value, rule.fold)
            key = (place[0], metric)
            mapped.quality[key] = max(mapped.quality.get(key, "native"), rule.quality, key=order.index)


def _first_of(labels: Mapping[str, str], names: list[str]) -> str:
    return next((labels[name] for name in names if labels.get(name)), "")


def _rank(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 20 else -1


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None


def version_matches(version: str, constraint: str) -> bool:
    """Whether a version such as `0.5.3.post1` meets `>=0.5,<0.6`; an unknown (empty) version meets nothing."""
    have = _version(version)
    if not have:
        return False
    for part in constraint.split(","):
        operator = part.strip().rstrip("0123456789.")
        wanted = _version(part)
        if not {">=": have >= wanted, "<": have < wanted, ">": have > wanted, "<=": have <= wanted}[operator]:
            return False
    return True


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])
