"""Rendering of readings: negotiation, escaping, numbers, and nothing that is not in the catalogue."""

from __future__ import annotations

import gzip
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from palegreen.catalogue.metrics import metrics
from palegreen.runtime.exposition import Collected, Exposition, Readings, negotiate, number

UP = "palegreen_source_up"
ERRORS = "palegreen_source_errors_total"
WATTS = "palegreen_gpu_power_watts"
TTFT = "palegreen_engine_time_to_first_token_seconds"
WHO = ("m", "", "vllm", "host:8000", "", "")
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


def one(name: str, value: float, *labels: str) -> Readings:
    collected = Collected()
    collected.add(name, value, *labels)
    return collected.readings()


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; Version=1.0.0", True),
        (PROMETHEUS_3, True),
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
        ("text/plain;q=1,application/openmetrics-text;q=0.5", False),
        ("application/openmetrics-text;q=0.5,*/*;q=0.9", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=0,*/*", False),
        ("application/openmetrics-text;q=nonsense", False),
        ("application/json", False),
        (",;,;;q=,", False),
    ],
)
def test_openmetrics_is_sent_only_to_who_prefers_it(accept: str, openmetrics: bool) -> None:
    assert negotiate(accept, "")[0] is openmetrics


@pytest.mark.parametrize(
    ("accepted", "gzipped"),
    [
        ("", False),
        ("gzip", True),
        ("deflate, GZip;q=0.5, br", True),
        ("gzip;q=0", False),
        ("gzip;q=0.0, identity", False),
        ("identity", False),
        ("x-gzipped", False),
    ],
)
def test_gzip_is_sent_only_to_who_accepts_it(accepted: str, gzipped: bool) -> None:
    assert negotiate("", accepted)[1] is gzipped


@given(st.text(max_size=80), st.text(max_size=80))
def test_no_header_makes_negotiation_fail(accept: str, accepted: str) -> None:
    assert all(isinstance(answer, bool) for answer in negotiate(accept, accepted))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.0"),
        (True, "1.0"),
        (1.5, "1.5"),
        (1e-7, "1e-07"),
        (2**53, "9007199254740992.0"),
        (1e300, "1e+300"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
    ],
)
def test_numbers_are_spelled_as_both_formats_spell_them(value: float, text: str) -> None:
    assert number(value) == text


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.floats(allow_nan=False))
def test_any_label_value_and_number_survive_both_formats(text: str, value: float) -> None:
    exposition = Exposition([one(UP, value, "engine", text)])
    for parse, openmetrics in ((parse_text, False), (parse_openmetrics, True)):
        (family,) = parse(exposition.body(openmetrics=openmetrics).decode())
        assert [(s.name, s.labels, s.value) for s in family.samples] == [
            (UP, {"source": "engine", "target": text}, value)
        ]


def test_label_values_are_escaped() -> None:
    body = Exposition([one(UP, 1, "engine", 'a\\b"c"\nd')]).body().decode()
    assert 'target="a\\\\b\\"c\\"\\nd"} 1.0\n' in body


def test_half_a_surrogate_pair_is_replaced_in_every_format() -> None:
    exposition = Exposition([one(UP, 1, "engine", "a\ud800b")])
    assert b'target="a?b"' in exposition.body()
    assert b'target="a?b"' in gzip.decompress(exposition.body(openmetrics=True, gzipped=True))


def test_an_undeclared_metric_is_refused() -> None:
    with pytest.raises(KeyError):
        one("palegreen_made_up", 1)


@pytest.mark.parametrize("labels", [(), ("engine",), ("engine", "a", "b")])
def test_a_wrong_number_of_labels_is_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="zip"):
        one(UP, 1, *labels)


def test_what_several_readings_give_of_one_metric_stands_under_one_header_in_the_catalogues_order() -> None:
    exposition = Exposition([one(UP, 1, "engine", "a"), one(WATTS, 300, "u", "0", ""), one(UP, 0, "engine", "b")])
    body = exposition.body().decode()
    assert body.count("# TYPE") == 2
    assert body.index(WATTS) < body.index(UP)
    assert [s.value for f in parse_text(body) if f.name == UP for s in f.samples] == [1, 0]


def test_nothing_gives_an_empty_text_and_an_openmetrics_end() -> None:
    assert Exposition([]).body() == b""
    assert Exposition([]).body(openmetrics=True) == b"# EOF\n"


def test_in_openmetrics_a_counters_family_is_named_without_total() -> None:
    exposition = Exposition([one(ERRORS, 3, "engine", "a")])
    assert f"# TYPE {ERRORS} counter\n" in exposition.body().decode()
    openmetrics = exposition.body(openmetrics=True).decode()
    assert f"# TYPE {ERRORS.removesuffix('_total')} counter\n" in openmetrics
    assert f'{ERRORS}{{source="engine",target="a"}} 3.0\n# EOF\n' in openmetrics


def test_a_histogram_keeps_its_buckets_sum_and_count_in_both_formats() -> None:
    collected = Collected(*WHO)
    collected.histogram(TTFT, [(0.001, 1), (0.5, 4), (10, 4), (math.inf, 6)], 31.25, 6)
    exposition = Exposition([collected.readings()])
    for parse, openmetrics in ((parse_text, False), (parse_openmetrics, True)):
        (family,) = parse(exposition.body(openmetrics=openmetrics).decode())
        assert family.type == "histogram"
        assert [(s.name.removeprefix(TTFT), s.labels.get("le"), s.value) for s in family.samples] == [
            ("_bucket", "0.001", 1),
            ("_bucket", "0.5", 4),
            ("_bucket", "10.0", 4),
            ("_bucket", "+Inf", 6),
            ("_sum", None, 31.25),
            ("_count", None, 6),
        ]
        assert all(s.labels["instance_id"] == "host:8000" for s in family.samples)


def test_a_gzipped_body_is_the_plain_one_and_the_same_bytes_each_time() -> None:
    for openmetrics in (False, True):
        exposition, again = (Exposition([one(UP, 1, "engine", "a")]) for _ in range(2))
        exposition.prepare([(openmetrics, True)])
        gzipped = exposition.body(openmetrics=openmetrics, gzipped=True)
        assert gzip.decompress(gzipped) == exposition.body(openmetrics=openmetrics)
        assert gzipped == again.body(openmetrics=openmetrics, gzipped=True)


def test_readings_do_not_change_once_they_are_given_away() -> None:
    collected = Collected()
    collected.add(UP, 1, "engine", "a")
    readings = collected.readings()
    collected.add(UP, 1, "engine", "b")
    assert "b" not in readings.lines[UP]
    with pytest.raises(TypeError):
        readings.lines[UP] = ""  # type: ignore[index]  # that is the point


def test_every_metric_of_the_catalogue_can_be_rendered_and_parsed_in_both_formats() -> None:
    collected = Collected()
    for name, metric in metrics().items():
        labels = [f"value of {label}" for label in metric.labels]
        if metric.kind == "histogram":
            collected.histogram(name, [(1, 2), (math.inf, 3)], 4, 3, *labels)
        else:
            collected.add(name, 1, *labels)
    exposition = Exposition([collected.readings()])
    for parse, openmetrics in ((parse_text, False), (parse_openmetrics, True)):
        families = {family.name: family for family in parse(exposition.body(openmetrics=openmetrics).decode())}
        for name, metric in metrics().items():
            family = families[name.removesuffix("_total") if metric.kind == "counter" else name]
            assert (family.type, family.documentation) == (metric.exposed_type, metric.help)
