"""OTLP decoded: conventions old and new, log events joined with their spans, steps of a chain."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.sample import Observation, Sample, Step
from palegreen.evaluators.wire import otlp
from palegreen.evaluators.wire.defaults import Defaults
from palegreen.evaluators.wire.errors import WireError
from palegreen.evaluators.wire.otlp import Otlp

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "small"}
PARIS = [{"role": "assistant", "parts": [{"type": "text", "content": "Paris."}], "finish_reason": "stop"}]
WEATHER = {"name": "get_weather", "parameters": {"type": "object"}}


def any_value(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case list():
            return {"arrayValue": {"values": [any_value(item) for item in value]}}
        case dict():
            return {"kvlistValue": {"values": pairs(value)}}
        case None:
            return {}
    return {"stringValue": value}


def pairs(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": any_value(value)} for key, value in values.items()]


def span(attributes: dict[str, Any], span_id: str = SPAN, seconds: float = 2.0, **more: Any) -> dict[str, Any]:
    return {
        "traceId": TRACE, "spanId": span_id, "name": "chat small", "startTimeUnixNano": str(10**18),
        "endTimeUnixNano": str(10**18 + int(seconds * 1e9)), "attributes": pairs(attributes),
    } | more  # fmt: skip


def traces(*spans: dict[str, Any]) -> Envelope:
    body = {"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}
    return Envelope({"kind": "otlp-traces", "content_type": "application/json"}, [json.dumps(body).encode()])


def logs(*records: tuple[str, Any], span_id: str = SPAN, attributes: dict[str, Any] | None = None) -> Envelope:
    told = [
        {"eventName": name, "body": any_value(body), "attributes": pairs(attributes or {})}
        | ({"traceId": TRACE, "spanId": span_id} if span_id else {})
        for name, body in records
    ]
    body = {"resourceLogs": [{"scopeLogs": [{"logRecords": told}]}]}
    return Envelope({"kind": "otlp-logs", "content_type": "application/json"}, [json.dumps(body).encode()])


def samples(found: list[Observation]) -> list[Sample]:
    return [one for one in found if isinstance(one, Sample)]


def sample_of(attributes: dict[str, Any], **more: Any) -> Sample:
    [sample] = samples(Otlp().decode(traces(span(attributes, **more))))
    return sample


def test_current_attributes_of_a_span() -> None:
    found = sample_of(
        CHAT
        | {
            "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "Be brief."}]),
            "gen_ai.input.messages": json.dumps(
                [
                    {
                        "role": "user",
                        "parts": [{"type": "text", "content": "Here:"}, {"type": "blob", "modality": "image"}],
                    },
                    {
                        "role": "assistant",
                        "parts": [{"type": "tool_call", "id": "1", "name": "f", "arguments": {"a": 1}}],
                    },
                    {"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", "result": {"b": 2}}]},
                ]
            ),
            "gen_ai.output.messages": json.dumps(
                [
                    {
                        "role": "assistant",
                        "parts": [
                            {"type": "reasoning", "content": "Hm."},
                            {"type": "text", "content": "Now"},
                            {"type": "tool_call", "id": "2", "name": "g", "arguments": '{"c":'},
                        ],
                        "finish_reason": "tool_call",
                    }
                ]
            ),
            "gen_ai.tool.definitions": json.dumps([{"type": "function", **WEATHER}]),
            "gen_ai.output.type": "json",
            "gen_ai.conversation.id": "c-1",
            "gen_ai.response.id": "r-1",
            "gen_ai.response.time_to_first_chunk": 0.25,
            "gen_ai.usage.input_tokens": 7,
            "gen_ai.usage.output_tokens": 3,
            "gen_ai.usage.cache_read.input_tokens": 2,
        }
    )
    assert found == Sample(
        response="Now", reasoning="Hm.", tool_calls=[{"name": "g", "arguments": '{"c":', "id": "2"}],
        finish_reason="tool_calls", id="r-1", time=1e9, model="small", requested_model="small", session="c-1",
        trace_id=TRACE, tools=[WEATHER], response_format={"type": "json_object"}, prompt_tokens=7,
        completion_tokens=3, cached_tokens=2, ttft_seconds=0.25, duration_seconds=2.0, tap="otlp",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Here:\n[image]"},
            {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": '{"a":1}', "id": "1"}]},
            {"role": "tool", "content": '{"b":2}', "tool_call_id": "1"},
        ],
    )  # fmt: skip


def test_attributes_with_an_index_as_openllmetry_wrote_them_before() -> None:
    found = sample_of(
        {
            "llm.request.type": "chat",
            "gen_ai.prompt.0.role": "user",
            "gen_ai.prompt.0.content": '[{"type": "text", "text": "Look"}, {"type": "image_url"}]',
            "gen_ai.prompt.10.role": "user",
            "gen_ai.prompt.10.content": "[1] is what?",
            "gen_ai.prompt.2.role": "assistant",
            "gen_ai.prompt.2.tool_calls.0.name": "f",
            "gen_ai.prompt.2.tool_calls.0.arguments": "{}",
            "gen_ai.completion.0.role": "assistant",
            "gen_ai.completion.0.content": "A cat.",
            "gen_ai.completion.0.finish_reason": "end_turn",
            "gen_ai.usage.prompt_tokens": 9,
            "gen_ai.usage.completion_tokens": 2,
            "llm.usage.total_tokens": 11,
            "llm.request.functions.0.name": "get_weather",
            "llm.request.functions.0.parameters": '{"type": "object"}',
            "traceloop.association.properties.session_id": "s",
        }
    )
    assert [message["content"] for message in found.messages] == ["Look\n[image]", "", "[1] is what?"]
    assert found.messages[1]["tool_calls"] == [{"name": "f", "arguments": "{}"}]
    assert (found.response, found.finish_reason, found.session) == ("A cat.", "stop", "s")
    assert (found.prompt_tokens, found.completion_tokens, found.tools) == (9, 2, [WEATHER])


def test_events_of_the_span_by_message_and_with_whole_contents() -> None:
    by_message = [
        {"name": "gen_ai.user.message", "attributes": pairs({"content": "Where?"})},
        {
            "name": "gen_ai.choice",
            "attributes": pairs({"index": 0, "finish_reason": "stop", "message": '{"content": "There."}'}),
        },
    ]
    whole = [
        {
            "name": "gen_ai.content.prompt",
            "attributes": pairs({"gen_ai.prompt": '[{"role": "user", "content": "Where?"}]'}),
        },
        {
            "name": "gen_ai.content.completion",
            "attributes": pairs({"gen_ai.completion": '[{"role": "assistant", "content": "There."}]'}),
        },
    ]
    for events in (by_message, whole):
        found = sample_of(CHAT, events=events)
        assert (found.prompt, found.response, found.truncated) == ("Where?", "There.", False)


@pytest.mark.parametrize(
    ("reason", "normal"),
    [("tool_call", "tool_calls"), ("end_turn", "stop"), ("MAX_TOKENS", "length"), ("content_filter", "content_filter")],
)
def test_reasons_to_finish_are_in_the_words_of_openai(reason: str, normal: str) -> None:
    said = json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": "x"}]}])
    found = sample_of(CHAT | {"gen_ai.output.messages": said, "gen_ai.response.finish_reasons": [reason]})
    assert found.finish_reason == normal


def test_links_of_a_chain_are_steps_with_the_names_that_the_span_gives() -> None:
    found = Otlp().decode(
        traces(
            span({"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "helper"}, "1", 9.0),
            span({"gen_ai.operation.name": "retrieval", "gen_ai.data_source.id": "wiki"}, "2", 1.5),
            span({"gen_ai.operation.name": "embeddings", "gen_ai.request.model": "e5"}, "3", 0.5),
            span({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "f" * 100}, "4", status={"code": 2}),
            span({"traceloop.span.kind": "tool", "traceloop.entity.name": "search"}, "5"),
            span({"openinference.span.kind": "RETRIEVER"}, "6", name="vector store"),
            span(CHAT | {"gen_ai.output.messages": json.dumps(PARIS)}, "7"),
            span({"gen_ai.operation.name": "create_agent"}, "8"),
            span({"http.method": "GET"}, "9"),
        )
    )
    steps = [one for one in found if isinstance(one, Step)]
    assert [(step.kind, step.name, step.seconds, step.failed) for step in steps] == [
        ("agent", "helper", 9.0, False),
        ("retrieval", "wiki", 1.5, False),
        ("embedding", "e5", 0.5, False),
        ("tool", "f" * 64, 2.0, True),
        ("tool", "search", 2.0, False),
        ("retrieval", "vector store", 2.0, False),
        ("model", "small", 2.0, False),
    ]
    assert {step.trace_id for step in steps} == {TRACE}
    assert len(samples(found)) == 1


def test_a_span_without_content_waits_for_its_events_in_either_order() -> None:
    told = logs(
        ("gen_ai.user.message", {"content": "Where?"}),
        ("gen_ai.choice", {"index": 0, "message": {"content": "There."}}),
    )
    asked = traces(span(CHAT | {"gen_ai.response.finish_reasons": ["stop"]}))
    for first, second in ((told, asked), (asked, told)):
        decoder = Otlp()
        assert samples(decoder.decode(first)) == []
        [found] = samples(decoder.decode(second))
        assert (found.prompt, found.response, found.finish_reason) == ("Where?", "There.", "stop")


def test_all_choices_are_waited_for() -> None:
    decoder = Otlp()
    decoder.decode(traces(span(CHAT | {"gen_ai.response.finish_reasons": ["stop", "length"]})))
    assert samples(decoder.decode(logs(("gen_ai.choice", {"index": 0, "message": {"content": "a"}})))) == []
    found = samples(decoder.decode(logs(("gen_ai.choice", {"index": 1, "message": {"content": "b"}}))))
    assert [(one.choice, one.response, one.finish_reason) for one in found] == [(0, "a", "stop"), (1, "b", "length")]


def test_what_has_waited_long_enough_is_given_as_far_as_it_is_known() -> None:
    now = [0.0]
    decoder = Otlp(Defaults(endpoint="chat", replica="r"), wait=10, clock=lambda: now[0])
    decoder.decode(traces(span(CHAT, "1")))
    decoder.decode(logs(("gen_ai.choice", {"index": 0, "message": {"content": "alone"}}), span_id="2"))
    decoder.decode(logs(("gen_ai.user.message", {"content": "never answered"}), span_id="3"))
    now[0] = 9.9
    assert decoder.due() == []
    now[0] = 10.0
    span_alone, event_alone = samples(decoder.due())
    assert (span_alone.response, span_alone.truncated, span_alone.id) == ("", True, f"{TRACE}-1")
    assert (event_alone.response, event_alone.truncated, event_alone.duration_seconds) == ("alone", False, None)
    assert (event_alone.endpoint, event_alone.replica, event_alone.tap) == ("chat", "r", "otlp")
    assert decoder.due() == []


def test_content_that_comes_on_span_and_event_is_one_sample() -> None:
    whole = traces(span(CHAT | {"gen_ai.output.messages": json.dumps(PARIS)}))
    told = logs((otlp.genai.DETAILS, None), attributes=CHAT | {"gen_ai.output.messages": PARIS})
    for order in ((whole, told), (told, whole)):
        now = [0.0]
        decoder = Otlp(clock=lambda now=now: now[0])  # type: ignore[misc]
        found = [one for envelope in order for one in decoder.decode(envelope)]
        now[0] = 100.0
        assert [one.response for one in samples(found + decoder.due())] == ["Paris."]


def test_a_span_that_is_sent_again_counts_once() -> None:
    decoder, whole = Otlp(), traces(span(CHAT | {"gen_ai.output.messages": json.dumps(PARIS)}))
    assert len(decoder.decode(whole)) == 2
    assert decoder.decode(whole) == []


def test_spans_without_ids_are_samples_of_their_own() -> None:
    found = samples(Otlp().decode(traces(span(CHAT, "", traceId=""), span(CHAT, "", traceId=""))))
    assert [(one.truncated, one.trace_id) for one in found] == [(True, ""), (True, "")]


def test_a_details_event_without_a_span_is_a_sample_of_its_own() -> None:
    told = logs((otlp.genai.DETAILS, None), span_id="", attributes=CHAT | {"gen_ai.output.messages": PARIS})
    [found] = samples(Otlp().decode(told))
    assert (found.response, found.model) == ("Paris.", "small")


def test_what_waits_is_bounded_by_number_and_by_bytes_and_the_oldest_goes_first() -> None:
    decoder = Otlp(most=3)
    found = [samples(decoder.decode(traces(span(CHAT, f"{number:x}")))) for number in range(5)]
    assert [[one.id[-1] for one in given] for given in found] == [[], [], [], ["0"], ["1"]]
    decoder = Otlp(most_bytes=10_000)
    event = ("gen_ai.choice", {"index": 0, "message": {"content": "x" * 6000}})
    assert samples(decoder.decode(logs(event, span_id="1"))) == []
    assert len(samples(decoder.decode(logs(event, span_id="2")))) == 1


def test_a_failed_span_is_an_error_and_no_empty_answer() -> None:
    found = sample_of(CHAT | {"error.type": "Timeout"}, status={"code": 2, "message": "took\ntoo long"})
    assert (found.ended, found.error, found.truncated) == ("error", "Timeout: took too long", False)


@pytest.mark.parametrize(
    ("body", "content_type", "encoding", "line"),
    [
        (b"\xff\xff", "application/x-protobuf", "", "not a protobuf ExportTraceServiceRequest"),
        (b"{", "application/json", "", "not JSON"),
        (b"[]", "application/json", "", "a JSON list; allowed: an object with resourceSpans"),
        (b"{}", "application/json", "gzip", "not valid gzip data"),
        (gzip.compress(b"\0" * (otlp.MAX_BODY + 1)), "application/x-protobuf", "gzip", "more than 67108864 bytes"),
    ],
)
def test_what_is_no_export_request_is_refused_in_one_line(
    body: bytes, content_type: str, encoding: str, line: str
) -> None:
    meta = {"kind": "otlp-traces", "content_type": content_type, "content_encoding": encoding}
    with pytest.raises(WireError, match=line) as refused:
        Otlp().decode(Envelope(meta, [body]))
    assert str(refused.value).startswith("OTLP body: ")
    assert "\n" not in str(refused.value)
