"""Metrics out by OTLP: what a daemon publishes, read once an interval and told in the semantic conventions' names."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from threading import Event, Thread
from typing import Any

import structlog
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from palegreen.runtime.otlp.config import OtlpExportConfig
from palegreen.runtime.otlp.exporting import Exporting
from palegreen.runtime.otlp.names import GPU, MEMORY_UTILIZATION, SERVER, Conventions, Target

log = structlog.get_logger()

_INFO = "palegreen_gpu_info"
_WANTED = (*GPU, *SERVER, _INFO)
_Key = tuple[str, tuple[tuple[str, str], ...]]
_Points = dict[Target, list[Any]]


class OtlpMetrics:
    """Sends metrics of GPUs and model servers once an interval, in a thread of its own.

    `exposition` gives what is published now, in Prometheus' text format; `resource` are the resource's attributes.
    Raises ConfigError, one line, where the extra `otel` is missing.
    """

    def __init__(self, config: OtlpExportConfig, resource: Mapping[str, str], exposition: Callable[[], bytes]) -> None:
        self._exporting = Exporting(config, "metrics")
        self._conventions = Conventions(config.semantic_conventions)
        self._interval = config.interval
        self._resource = dict(resource)
        self._exposition = exposition
        self._started = time.time_ns()
        self._begun: dict[_Key, tuple[int, float]] = {}  # when a cumulative series began, and its last value
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="otlp metrics", daemon=True)

    def start(self) -> None:
        """Begin; the first export is one interval from now."""
        self._thread.start()

    def stop(self) -> None:
        """End, without waiting for a receiver that does not answer."""
        self._stopped.set()
        self._exporting.close()
        if self._thread.is_alive():
            self._thread.join(2.0)

    def counts(self) -> Mapping[str, int]:
        """Data points by result, `ok` or `failed`."""
        return self._exporting.counts()

    def export(self) -> None:
        """Read and send once."""
        metrics = self._metrics(samples(self._exposition(), _WANTED))
        points = sum(len(metric.data.data_points) for metric in metrics)
        if points:
            self._exporting.send(_batch(metrics, self._resource, self._conventions), points)

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            try:
                self.export()
            except Exception:
                log.exception("otlp.defect", signal="metrics", effect="this export is left out")

    def _metrics(self, found: Mapping[str, list[Sample]]) -> list[Any]:
        now = time.time_ns()
        points: _Points = {}
        self._gpus(found, points, now)
        for name, target in SERVER.items():
            for labels, buckets, total in _histograms(name, found):
                key = (name, tuple(sorted(labels.items())))
                begun = self._since(key, buckets[-1][1], now)
                points.setdefault(target, []).append(
                    _histogram(self._conventions.attributes(_server(labels)), buckets, total, begun, now)
                )
        return _joined(points)

    def _gpus(self, found: Mapping[str, list[Sample]], points: _Points, now: int) -> None:
        about = {(s.labels["uuid"], s.labels.get("mig", "")): s.labels for s in found.get(_INFO, ())}
        memory: dict[tuple[str, str], dict[str, float]] = {}
        for name, target in GPU.items():
            for sample in found.get(name, ()):
                device = (sample.labels["uuid"], sample.labels.get("mig", ""))
                attributes = self._conventions.attributes(_gpu(device, sample.labels, about) | target.fixed)
                begun = self._started
                if target.instrument == "counter":
                    begun = self._since((name, tuple(sorted(sample.labels.items()))), sample.value, now)
                points.setdefault(target, []).append(_number(attributes, sample.value, begun, now))
                if target.name.startswith("hw.gpu.memory."):
                    memory.setdefault(device, {})[target.name] = sample.value
                    if len(memory[device]) == 2 and memory[device]["hw.gpu.memory.limit"]:
                        share = memory[device]["hw.gpu.memory.usage"] / memory[device]["hw.gpu.memory.limit"]
                        points.setdefault(MEMORY_UTILIZATION, []).append(_number(attributes, share, self._started, now))

    def _since(self, key: _Key, value: float, now: int) -> int:
        """When a cumulative series began, as far as is known: when it was first seen, or seen to have begun anew."""
        begun, last = self._begun.get(key, (now, 0.0))
        if value < last:
            begun = now
        self._begun[key] = (begun, value)
        return begun


def samples(exposition: bytes, wanted: Iterable[str]) -> dict[str, list[Sample]]:
    """Samples of the wanted metrics by name of the sample (`..._bucket`, `..._sum`)."""
    names = tuple(wanted)
    kept = [line for line in exposition.decode().splitlines() if line.startswith(names)]
    found: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families("\n".join(kept) + "\n"):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def _histograms(
    name: str, found: Mapping[str, list[Sample]]
) -> Iterable[tuple[dict[str, str], list[tuple[float, float]], float]]:
    """(labels, cumulative counts by upper bound, sum) of each histogram that is whole."""
    buckets: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
    for sample in found.get(f"{name}_bucket", ()):
        labels = dict(sample.labels)
        bound = float(labels.pop("le"))
        buckets.setdefault(tuple(sorted(labels.items())), []).append((bound, sample.value))
    sums = {tuple(sorted(sample.labels.items())): sample.value for sample in found.get(f"{name}_sum", ())}
    for labels_of, counts in buckets.items():
        counts.sort()
        if counts[-1][0] == float("inf") and labels_of in sums:
            yield dict(labels_of), counts, sums[labels_of]


def _server(labels: Mapping[str, str]) -> dict[str, str | float | None]:
    """Engines do not tell chat and completions apart, so that the operation is named in a word of our own.

    The evaluator does not know which engine it is.
    """
    return {
        "operation": "inference",
        "provider": labels.get("engine", ""),
        "request_model": labels["model"],
        "namespace": labels["namespace"],
        "pod": labels["pod"],
        "endpoint": labels["endpoint"],
        "instance_id": labels["instance_id"],
    }


def _gpu(
    device: tuple[str, str], labels: Mapping[str, str], about: Mapping[tuple[str, str], Mapping[str, str]]
) -> dict[str, str | float | None]:
    uuid, mig = device
    info = about.get(device) or about.get((uuid, "")) or {}
    return {
        "id": f"{uuid}/{mig}" if mig else uuid,
        "parent": uuid if mig else "",
        "type": "gpu",
        "name": labels.get("gpu", ""),
        "vendor": "NVIDIA",
        "model": info.get("name", ""),
        "driver_version": info.get("driver_version", ""),
    }


def _number(attributes: Any, value: float, begun: int, now: int) -> Any:
    from opentelemetry.sdk.metrics.export import NumberDataPoint

    return NumberDataPoint(attributes, begun, now, int(value) if value.is_integer() else value)


def _histogram(attributes: Any, buckets: list[tuple[float, float]], total: float, begun: int, now: int) -> Any:
    from opentelemetry.sdk.metrics.export import HistogramDataPoint

    cumulative = [int(count) for _, count in buckets]
    each = [count - before for before, count in zip([0, *cumulative], cumulative, strict=False)]
    bounds = [bound for bound, _ in buckets[:-1]]
    nobody: Any = None  # least and most, which engines do not tell; OTLP lets them be absent, the SDK's types do not
    return HistogramDataPoint(attributes, begun, now, cumulative[-1], total, each, bounds, nobody, nobody)


def _joined(points: _Points) -> list[Any]:
    """One metric a name, of the points of all targets with that name."""
    from opentelemetry.sdk.metrics.export import AggregationTemporality, Gauge, Histogram, Metric, Sum

    by_name: dict[str, tuple[Target, list[Any]]] = {}
    for target, some in points.items():
        by_name.setdefault(target.name, (target, []))[1].extend(some)
    cumulative, metrics = AggregationTemporality.CUMULATIVE, []
    for target, all_points in by_name.values():
        data: Any
        match target.instrument:
            case "gauge":
                data = Gauge(all_points)
            case "histogram":
                data = Histogram(all_points, cumulative)
            case _:
                data = Sum(all_points, cumulative, is_monotonic=target.instrument == "counter")
        metrics.append(Metric(target.name, target.about, target.unit, data))
    return metrics


def _batch(metrics: list[Any], resource: Mapping[str, str], conventions: Conventions) -> Any:
    from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    schema = conventions.schema_url
    scope = ScopeMetrics(InstrumentationScope("palegreen", schema_url=schema), metrics, schema)
    return MetricsData([ResourceMetrics(Resource(resource, schema), [scope], schema)])
