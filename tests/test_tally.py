"""A tally counts what happens, in bounded room, and becomes an exposition that standard parsers read."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text

from palegreen.runtime.exposition import Exemplar, Exposition
from palegreen.runtime.tally import OTHER, Tally

DROPPED = "palegreen_tap_dropped_total"
SCORE = "palegreen_quality_score"
WHO = ("m", "chat", "host:1", "", "")


def values(tally: Tally, name: str) -> dict[tuple[str, ...], float]:
    body = Exposition([tally.readings()]).body().decode()
    found = {}
    for family in text(body):
        for sample in family.samples:
            if sample.name == name:
                found[tuple(sample.labels.values())] = sample.value
    return found


def test_a_counter_adds_up_by_its_labels() -> None:
    tally = Tally(("chat", "host:1", "", ""))
    tally.count(DROPPED, "proxy", "queue_full")
    tally.count(DROPPED, "proxy", "queue_full", by=2)
    tally.count(DROPPED, "asgi", "too_large")
    assert values(tally, DROPPED) == {
        ("chat", "host:1", "", "", "proxy", "queue_full"): 3,
        ("chat", "host:1", "", "", "asgi", "too_large"): 1,
    }


def test_a_histogram_has_cumulative_buckets_a_sum_and_a_count() -> None:
    tally = Tally(buckets={SCORE: (0.5, 0.9)})
    for score in (0.1, 0.5, 0.7, 1.0):
        tally.observe(SCORE, score, *WHO, "length")
    buckets = {labels[-1]: value for labels, value in values(tally, f"{SCORE}_bucket").items()}
    assert buckets == {"0.5": 2, "0.9": 3, "+Inf": 4}
    assert list(values(tally, f"{SCORE}_sum").values()) == [pytest.approx(2.3)]
    assert list(values(tally, f"{SCORE}_count").values()) == [4]


def test_an_exemplar_is_shown_in_openmetrics_and_nowhere_else() -> None:
    tally = Tally(buckets={SCORE: (0.5,)})
    tally.observe(SCORE, 0.2, *WHO, "length", exemplar=Exemplar("ab" * 16, 0.2, 1_700_000_000.0))
    tally.observe(SCORE, 0.9, *WHO, "overlap")
    exposition = Exposition([tally.readings()])
    assert b"trace_id" not in exposition.body()
    samples = [s for f in openmetrics(exposition.body(openmetrics=True).decode()) for s in f.samples]
    marked = [s for s in samples if s.exemplar is not None]
    assert [(s.labels["check"], s.labels["le"]) for s in marked] == [("length", "0.5")]
    assert marked[0].exemplar is not None
    assert marked[0].exemplar.labels == {"trace_id": "ab" * 16}
    assert [s.value for s in samples if s.labels.get("check") == "overlap" and s.name.endswith("_count")] == [1]


def test_more_values_of_a_free_label_than_allowed_become_other_and_are_counted_as_overflow() -> None:
    tally = Tally(buckets={SCORE: (0.5,)}, limit=3, free=frozenset({"model"}))
    for number in range(10):
        tally.observe(SCORE, 0.9, f"model-{number}", "chat", "host:1", "", "", "length")
    counts = values(tally, f"{SCORE}_count")
    assert len(counts) == 4
    assert counts[OTHER, "chat", "host:1", "", "", "length"] == 7
    assert values(tally, "palegreen_label_overflow_total") == {(SCORE,): 7}


def test_a_value_that_was_seen_gets_new_series_after_an_overflow_too() -> None:
    tally = Tally(buckets={SCORE: (0.5,)}, limit=1, free=frozenset({"model"}))
    for model, check in (("known", "length"), ("another", "length"), ("known", "refusal")):
        tally.observe(SCORE, 0.9, model, "chat", "host:1", "", "", check)
    assert values(tally, f"{SCORE}_count")["known", "chat", "host:1", "", "", "refusal"] == 1


def test_a_value_from_outside_is_cut_and_holds_no_control_characters() -> None:
    tally = Tally(free=frozenset({"model"}))
    tally.count("palegreen_feedback_total", "line\nbreak" + "x" * 100_000, "chat", "host:1", "", "", "thumbs_up")
    ((model, *_),) = values(tally, "palegreen_feedback_total")
    assert model == "line break" + "x" * 118


def test_a_metric_that_nobody_declared_is_refused() -> None:
    with pytest.raises(KeyError):
        Tally().count("palegreen_invented_total")
