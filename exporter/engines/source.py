"""An inference engine as a source: found by what it serves, read, mapped, republished."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from urllib.parse import urlsplit

import structlog

from palegreen.catalogue.engines import Engine
from palegreen.catalogue.metrics import metrics
from palegreen.exporter.attribution.replicas import GpuName
from palegreen.exporter.engines.facts import Facts, Known
from palegreen.exporter.engines.fetch import Fetched, Fetcher, FetchError
from palegreen.exporter.engines.kvcache import add_expected_waste
from palegreen.exporter.engines.mapping import Mapped, Mapper, Owner
from palegreen.exporter.engines.page import Histogram, Page, PageError, PageParser, Row, decoded
from palegreen.exporter.source import SourceError
from palegreen.runtime.exposition import Collected, Readings

log = structlog.get_logger()

_CANONICAL = tuple(metric.name for metric in metrics().values() if metric.canonical)


class _NoMetricsError(PageError):
    """Something else than metrics text: some servers answer every path with a web page or a word."""


class _ConsumedError(_NoMetricsError):
    """JSON where metrics were looked for; of trtllm-serve's, each reading consumes a part."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Labels that say which replica this is; `model` is used where the engine names none."""

    instance_id: str
    endpoint: str = ""
    namespace: str = ""
    pod: str = ""
    model: str = ""


class EngineSource:
    """Reads one server. `fetcher.url` may carry the path of its metrics page; without one the page is looked for.

    `gpus` tells which GPUs the server computes on, as far as that is known.
    """

    name = "engine"

    def __init__(
        self,
        mapper: Mapper,
        engines: Sequence[Engine],
        fetcher: Fetcher,
        identity: Identity,
        interval: float,
        gpus: Callable[[], Sequence[GpuName]] = tuple,
    ) -> None:
        self.target = identity.instance_id
        self.interval = interval
        # every page that may have to be tried, and the facts of what is found there
        self.deadline = fetcher.deadline * 3 + 10
        self._mapper = mapper
        self._engines = {engine.engine: engine for engine in engines}
        self._fetcher = fetcher
        self._identity = identity
        self._gpus = gpus
        self._parser = PageParser(mapper.wanted, mapper.may_be_nan)
        self._facts = Facts(fetcher)
        self._known = Known(model=identity.model)
        given = urlsplit(fetcher.url)
        path = given.path + (f"?{given.query}" if given.query else "")
        self._given = None if path in ("", "/") else path
        self._path = self._given
        self._found = ""
        self._barren: dict[str, FetchError | PageError] = {}

    def collect(self) -> Readings:
        """Read the page and map it; raises SourceError where there is nothing to believe."""
        try:
            mapped = self._read()
        except (FetchError, PageError) as failure:
            self._path = self._given
            self._facts.forget()
            starting = self._starting(failure)
            if starting is not None:
                return starting
            raise SourceError(f"{self._fetcher.url}: {failure}") from None
        self._found = ", ".join(sorted(each.engine.title for each in mapped))
        return self._publish(mapped)

    def close(self) -> None:
        """Nothing is held between readings."""

    def describe(self) -> str:
        """What was recognised at the address."""
        return f"{self._fetcher.url} ({self._found or 'nothing recognised yet'})"

    def _read(self) -> list[Mapped]:
        if self._path is not None:
            return self._mapped(self._path, self._fetcher.get(self._path))
        refused: dict[str, FetchError | PageError] = {}
        for path in self._candidates():
            try:
                mapped = self._mapped(path, self._fetcher.get(path))
            except FetchError as failure:
                if failure.status in (None, 503):
                    self._barren.clear()
                    raise  # there is no server, or it has the page and cannot give it now
                refused[path] = failure
            except _ConsumedError as failure:
                self._barren[path] = refused[path] = failure
            except _NoMetricsError as failure:
                refused[path] = failure
            else:
                self._path = path
                return mapped
        refused |= self._barren
        raise FetchError("no metrics page: " + "; ".join(f"{path}: {failure}" for path, failure in refused.items()))

    def _starting(self, failure: FetchError | PageError) -> Readings | None:
        """An engine that says that it is still loading is in a state, it has not failed."""
        body = failure.body if isinstance(failure, FetchError) else b""
        for engine in self._engines.values():
            if engine.starting and engine.starting.encode() in body:
                self._found = f"{engine.title}, loading its model"
                collected = self._labelled(engine, Owner(self._identity.model, ""))
                collected.add("palegreen_engine_state", 1, "starting")
                _add_gpus(collected, self._gpus())
                return collected.readings()
        return None

    def _candidates(self) -> list[str]:
        """Paths to try, those of engines that are harmed by another's path first.

        One that held no metrics is left alone until the server goes away: reading trtllm-serve's JSON consumes it.
        """
        ordered = sorted(self._engines.values(), key=lambda e: (not e.path_first, e.path != "/metrics", e.engine))
        return [path for path in dict.fromkeys(engine.path for engine in ordered) if path not in self._barren]

    def _mapped(self, path: str, fetched: Fetched) -> list[Mapped]:
        page = self._page(path, fetched)
        mapped = self._mapper.map(page, self._known.version, self._known.model)
        if not mapped and not page.listing:
            raise PageError(_nothing(page))
        known = self._facts.of([each.engine for each in mapped], self._identity.model)
        if known != self._known:
            self._known = known
            mapped = self._mapper.map(page, known.version, known.model)
        return mapped

    def _page(self, path: str, fetched: Fetched) -> Page:
        as_json = next((e for e in self._engines.values() if e.json_page and e.path == path.split("?")[0]), None)
        if as_json is not None and as_json.json_page is not None:
            return _page_of_json(as_json, fetched.body)
        if fetched.html:
            raise _NoMetricsError("an HTML page, not metrics")
        if "json" in fetched.content_type or fetched.body[:1] in (b"[", b"{"):
            hint = "; trtllm-serve has its text at /prometheus/metrics, with return_perf_metrics: true"
            raise _ConsumedError("JSON, not metrics text" + (hint if path == "/metrics" else ""))
        text = decoded(fetched.body)
        if self._path is None and text.strip() and "# TYPE " not in text:
            raise _NoMetricsError("text without a single TYPE, not metrics")
        openmetrics = "application/openmetrics-text" in fetched.content_type
        return self._parser.parse(text, openmetrics=openmetrics)

    def _publish(self, mapped: Sequence[Mapped]) -> Readings:
        whole = Collected()
        gpus = self._gpus()
        for each in mapped:
            add_expected_waste(each)
            for owner in each.owners():
                # which of several engine processes behind one port is on which GPU cannot be told
                whole.include(self._owned(each, owner, () if owner.instance else gpus))
        return whole.readings()

    def _labelled(self, engine: Engine, owner: Owner) -> Collected:
        who = self._identity
        instance = f"{who.instance_id}/{owner.instance}" if owner.instance else who.instance_id
        return Collected(owner.model, who.endpoint, engine.engine, instance, who.namespace, who.pod)

    def _owned(self, mapped: Mapped, owner: Owner, gpus: Sequence[GpuName]) -> Readings:
        collected = self._labelled(mapped.engine, owner)
        for metric, rows in mapped.rows.items():
            declared = metrics()[metric].labels[6:]
            for (of, labels), value in rows.items():
                if of != owner:
                    continue
                values = dict(labels)
                ordered = [values[label] for label in declared]
                if isinstance(value, Histogram):
                    collected.histogram(metric, value.buckets, value.sum, value.count, *ordered)
                else:
                    collected.add(metric, value, *ordered)
        if not owner.model and any(other.model for other in mapped.owners()):
            return collected.readings()  # what counts for the whole server is no model of its own
        for metric in _CANONICAL:
            quality = mapped.quality.get((owner, metric), "absent") if metric in mapped.rows else "absent"
            collected.add("palegreen_engine_metric_supported", quality != "absent", metric, quality)
        if self._known.version:
            collected.add("palegreen_engine_info", 1, self._known.version)
        _add_gpus(collected, gpus)
        return collected.readings()


def _add_gpus(collected: Collected, gpus: Sequence[GpuName]) -> None:
    for gpu in gpus:
        collected.add("palegreen_engine_gpu_info", 1, *gpu)


def _nothing(page: Page) -> str:
    if any(row.labels.get("server") for rows in page.rows.values() for row in rows):
        return "a router that repeats its backends' metrics (label server): give the engines' own addresses"
    return f"no engine recognised among {page.families} metric families"


def _page_of_json(engine: Engine, body: bytes) -> Page:
    """A status page as rows; a page that lists nothing is a page, of an engine without a model."""
    spec = engine.json_page
    if spec is None:
        raise PageError(f"{engine.engine} has no JSON page")
    try:
        items = json.loads(body)[spec.items]
        rows = {name: list(_json_rows(items, key, spec.labels)) for name, key in spec.samples.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise PageError(f"not the JSON of {engine.title}: no list {spec.items!r} of objects") from None
    return Page(rows=rows, types=dict.fromkeys(rows, "gauge"), families=len(rows), listing=True)


def _json_rows(items: Sequence[dict[str, object]], key: str, labels: dict[str, str]) -> Iterator[Row]:
    for item in items:
        value = item.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            if not isfinite(value):
                raise ValueError(f"{key} is not a number")
            yield Row({label: str(item[name]) for label, name in labels.items()}, float(value))
