"""Reading an engine as the daemon does, and what comes out of it."""

from __future__ import annotations

from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Sample

from palegreen.exporter.config import EngineConfig, NodeConfig
from palegreen.exporter.engines.mapping import Mapper
from palegreen.exporter.engines.source import EngineSource
from palegreen.exporter.node import engine_source, mappings
from palegreen.runtime.exposition import Exposition, Readings

VLLM_PAGE = """\
# HELP vllm:num_requests_running Number of requests.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m"} 1234.0
"""


def source(url: str, timeout: float = 5.0, **options: Any) -> EngineSource:
    """The source of one engine; `options` are EngineConfig's, and `body_limit`."""
    limit = {"engine_body_limit": options.pop("body_limit")} if "body_limit" in options else {}
    engine = EngineConfig(url=url, timeout=timeout, **{"instance_id": "node:1", **options})
    config = NodeConfig(engines=[engine], nvml=False, **limit)
    known = mappings(None)
    return engine_source(config, engine, Mapper(known), known)


def samples(readings: Readings) -> list[Sample]:
    """Samples of readings, through both formats and Prometheus' own parsers, which must agree."""
    exposition = Exposition([readings])
    text = [s for family in parse_text(exposition.body().decode()) for s in family.samples]
    openmetrics = [s for f in parse_openmetrics(exposition.body(openmetrics=True).decode()) for s in f.samples]
    assert _comparable(text) == _comparable(openmetrics)
    return text


def value(found: list[Sample], name: str, **labels: str) -> float | None:
    """Value of the only sample of that name and with these labels; None if there is none."""
    matching = [s for s in found if s.name == name and labels.items() <= s.labels.items()]
    assert len(matching) < 2, matching
    return matching[0].value if matching else None


def _comparable(found: list[Sample]) -> list[tuple[str, list[tuple[str, str]], str]]:
    return sorted((s.name, sorted(s.labels.items()), repr(s.value)) for s in found)
