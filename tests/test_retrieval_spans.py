"""Retrievals of users, as OTLP tells of them."""

from __future__ import annotations

from support.engine import samples, value

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.ledger import Ledger
from palegreen.evaluators.sample import Step
from palegreen.runtime.exposition import Collected


def test_a_retrieval_is_one_of_the_index_and_one_link_of_its_chain() -> None:
    ledger = Ledger(EvaluateConfig(sink_address="127.0.0.1:0"))
    ledger.step(Step("retrieval", "docs", 0.2, trace_id="4bf92f3577b34da6a3ce929d0e0e4736"))
    ledger.step(Step("tool", "clock", 0.1))
    shown = samples(ledger.readings(Collected()))
    name = "palegreen_retrieval_duration_seconds"
    assert value(shown, f"{name}_count", index="docs", source="span") == 1
    assert value(shown, f"{name}_sum", index="docs", source="span") == 0.2
    chain = [s for s in shown if s.name == "palegreen_chain_step_duration_seconds_count"]
    assert {(s.labels["step"], s.labels["name"], s.value) for s in chain} == {
        ("retrieval", "docs", 1),
        ("tool", "clock", 1),
    }
    assert not [sample for sample in shown if sample.name == f"{name}_count" and sample.labels["index"] == "clock"]


def test_indexes_that_spans_name_are_so_many_and_no_more() -> None:
    ledger = Ledger(EvaluateConfig(sink_address="127.0.0.1:0"))
    for number in range(100):
        ledger.step(Step("retrieval", f"index {number}", 0.2))
    name = "palegreen_retrieval_duration_seconds_count"
    shown = [sample for sample in samples(ledger.readings(Collected())) if sample.name == name]
    assert len(shown) == 51 and sum(sample.value for sample in shown) == 100
