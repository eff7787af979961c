"""The catalogue: names follow the field's conventions, and the documentation is what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from palegreen.catalogue import docs
from palegreen.catalogue.engines import Engine, engines
from palegreen.catalogue.metrics import Metric, metrics

ROOT = Path(__file__).parent.parent
METRICS = list(metrics().values())


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_is_named_after_its_kind_and_unit(metric: Metric) -> None:
    assert re.fullmatch(r"(palegreen|process)_[a-z0-9_]+", metric.name)
    assert (metric.kind == "counter") == metric.name.endswith("_total")
    assert (metric.kind == "info") == metric.name.endswith("_info")
    if metric.unit:
        assert metric.name.removesuffix("_total").endswith(f"_{metric.unit}")
    assert metric.help.endswith(".")
    assert len(set(metric.labels)) == len(metric.labels)
    assert not {"le", "quantile", "job", "instance"} & set(metric.labels)


def test_docs_metrics_md_is_what_the_catalogue_says() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8") == docs.render()


def test_each_engine_has_a_mapping_of_its_own() -> None:
    assert {engine.engine for engine in engines()} == {
        "dynamo", "kserve", "llamacpp", "lmdeploy", "ollama", "ray_serve_llm", "sglang", "tgi", "triton",
        "trtllm_serve", "vllm",
    }  # fmt: skip


def test_each_canonical_metric_is_given_by_some_engine() -> None:
    unmapped = {metric.name for metric in METRICS if metric.canonical} - {n for e in engines() for n in e.metrics}
    assert not unmapped


@pytest.mark.parametrize(
    ("metrics_", "problem"),
    [
        ({"palegreen_engine_invented": {"first": [{"from": "x"}]}}, "not a canonical metric"),
        ({"palegreen_engine_batch_size": {"first": [{"from": "x", "labels": {"reason": "all"}}]}}, "labels must be"),
        ({"palegreen_engine_requests_waiting": {"first": [{"from": "x"}]}}, "labels must be"),
        ({"palegreen_engine_requests_running": {}}, "exactly one of"),
        ({"palegreen_engine_requests_running": {"first": [{"from": "x", "foldd": "sum"}]}}, "Extra inputs"),
    ],
)  # fmt: skip
def test_a_mapping_that_cannot_be_right_is_refused(metrics_: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Engine.model_validate({"engine": "e", "title": "E", "recognise": {"prefixes": ["e_"]}, "metrics": metrics_})
