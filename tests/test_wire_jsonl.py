"""Recorded samples: what is written reads as it was, and what is wrong is one clear line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.wire import captured, samples

from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.sample import Ended, Sample
from palegreen.evaluators.wire.decode import Decoder
from palegreen.evaluators.wire.defaults import Defaults
from palegreen.evaluators.wire.errors import WireError
from palegreen.evaluators.wire.jsonl import read, write

TEXT = st.text(max_size=12)
NAME = st.text(min_size=1, max_size=8)
SECONDS = st.none() | st.floats(0, 1e6)
COUNT = st.none() | st.integers(0, 1 << 40)
CALL = st.fixed_dictionaries({"name": NAME, "arguments": TEXT}, optional={"id": NAME})
MESSAGE = st.fixed_dictionaries(
    {"role": NAME.filter(lambda role: role != "function"), "content": TEXT},
    optional={"tool_calls": st.lists(CALL, min_size=1, max_size=2), "tool_call_id": NAME, "name": NAME},
)
SCHEMA = st.fixed_dictionaries({"type": TEXT}, optional={"properties": st.dictionaries(TEXT, TEXT, max_size=2)})
TOOL = st.fixed_dictionaries({"name": NAME}, optional={"description": NAME, "parameters": SCHEMA})


@st.composite
def recorded(draw: Any) -> Sample:
    """Any sample that a decoder may give."""
    given_ = draw(
        st.builds(
            Sample,
            response=TEXT,
            id=TEXT,
            time=st.floats(0, 4e9),
            model=TEXT,
            endpoint=TEXT,
            route=TEXT,
            replica=TEXT,
            session=TEXT,
            team=TEXT,
            trace_id=TEXT,
            messages=st.lists(MESSAGE, max_size=3),
            tools=st.lists(TOOL, max_size=2),
            response_format=st.none() | SCHEMA,
            contexts=st.lists(TEXT, max_size=2),
            tool_calls=st.lists(CALL, max_size=2),
            finish_reason=TEXT,
            prompt_tokens=COUNT,
            completion_tokens=COUNT,
            logprobs=st.none() | st.lists(st.floats(-30, 0), min_size=1, max_size=4),
            mean_logprob=st.none() | st.floats(-30, 0),
            ttft_seconds=SECONDS,
            duration_seconds=SECONDS,
            labels=st.dictionaries(TEXT, TEXT, max_size=2),
            system_fingerprint=TEXT,
            sampled=st.sampled_from(["rate", "kept"]),
            tap=TEXT,
            choice=st.integers(0, 9),
            requested_model=TEXT,
            reasoning=TEXT,
            reasoning_tokens=COUNT,
            cached_tokens=COUNT,
            status=st.none() | st.integers(100, 599),
            error=TEXT,
            ended=st.sampled_from(get_args(Ended)),
            truncated=st.booleans(),
        )
    )
    if given_.logprobs and given_.mean_logprob is None:
        given_.mean_logprob = sum(given_.logprobs) / len(given_.logprobs)
    return given_


@given(recorded())
def test_what_is_written_reads_as_it_was(sample: Sample) -> None:
    line = write(sample)
    assert b"\n" not in line
    assert read(line) == sample


@pytest.mark.parametrize(
    "name", ["vllm-chat-reasoning-tools-stream", "llamacpp-chat-logprobs", "llamacpp-chat-bad-request"]
)
def test_what_came_over_the_wire_reads_as_it_was_recorded(name: str) -> None:
    for sample in samples(captured(name, time=1.5)):
        assert read(write(sample)) == sample


def test_only_a_response_is_needed() -> None:
    assert read(b'{"response": ""}') == Sample(response="")
    assert write(Sample(response="x")) == b'{"response":"x"}'


def test_null_and_keys_that_are_not_known_are_passed_over() -> None:
    line = b'{"response": "x", "id": null, "usage": null, "temperature": 1, "usage_": {}, "mine": [1]}'
    assert read(line) == Sample(response="x")


@pytest.mark.parametrize(
    ("time", "epoch"),
    [
        (1.5, 1.5),
        (1760000000, 1760000000.0),
        ("2026-01-31T12:00:00Z", 1769860800.0),
        ("2026-01-31t12:00:00z", 1769860800.0),
        ("2026-01-31 13:00:00.250+01:00", 1769860800.25),
        ("2026-01-31T12:00:00.123456789Z", 1769860800.123456),
    ],
)
def test_a_time_is_rfc_3339_or_epoch_seconds(time: Any, epoch: float) -> None:
    assert read(json.dumps({"response": "", "time": time})).time == epoch


def test_messages_and_tools_may_be_as_the_apis_have_them() -> None:
    record = {
        "response": "",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image_url"}]}],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    }
    assert read(json.dumps(record)) == Sample(
        response="",
        messages=[{"role": "user", "content": "Hi\n[image]"}],
        tools=[{"name": "f"}],
        tool_calls=[{"name": "f", "arguments": "{}", "id": "c"}],
    )


def test_the_mean_of_logprobs_is_taken_where_it_is_not_given() -> None:
    assert read(b'{"response": "", "logprobs": [null, -1, -3]}').mean_logprob == -2.0
    assert read(b'{"response": "", "logprobs": [-1, -3], "mean_logprob": -5}').mean_logprob == -5.0


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ([], "is no JSON object; allowed: an object with at least response"),
        ({}, "response: is missing; allowed: a text, empty where there is none"),
        ({"response": None}, "response: is missing; allowed: a text, empty where there is none"),
        ({"response": 1}, "response: is not valid; allowed: a text"),
        ({"model": ["m"]}, "model: is not valid; allowed: a text"),
        (
            {"time": "yesterday"},
            "time: is not valid; allowed: RFC 3339 with its offset, such as 2026-01-31T12:00:00Z, or",
        ),
        ({"time": "2026-01-31T12:00:00"}, "time: is not valid; allowed: RFC 3339 with its offset"),
        ({"time": "2026-13-31T12:00:00Z"}, "time: is not valid; allowed: RFC 3339 with its offset"),
        ({"time": 1760000000000}, "time: is not valid; allowed: RFC 3339 with its offset"),  # milliseconds
        ({"time": True}, "time: is not valid"),
        ({"usage": 3}, "usage: is not valid; allowed: an object"),
        ({"usage": {"prompt_tokens": -1}}, "usage.prompt_tokens: is not valid; allowed: a whole number, 0 or more"),
        ({"usage": {"completion_tokens": 1.5}}, "usage.completion_tokens: is not valid; allowed: a whole number"),
        ({"choice": 1 << 70}, "choice: is not valid; allowed: a whole number, 0 or more"),
        ({"sampled": "all"}, "sampled: is not valid; allowed: rate, kept"),
        ({"ended": ["error"]}, "ended: is not valid; allowed: complete, client_abort, interrupted, error"),
        ({"truncated": "no"}, "truncated: is not valid; allowed: true or false"),
        ({"ttft_seconds": -1}, "ttft_seconds: is not valid; allowed: seconds, 0 or more"),
        ({"duration_seconds": "1s"}, "duration_seconds: is not valid; allowed: seconds, 0 or more"),
        ({"messages": {}}, "messages: is not valid; allowed: a list of objects with a role"),
        ({"messages": [{"content": "x"}]}, "messages: is not valid; allowed: a list of objects with a role"),
        (
            {"messages": [{"role": "user", "content": 1}]},
            "messages: is not valid; allowed: messages whose content is a",
        ),
        ({"tools": ["f"]}, "tools: is not valid; allowed: a list of objects with name, description and parameters"),
        ({"tool_calls": ["f"]}, "tool_calls: is not valid; allowed: a list of objects with name and arguments"),
        ({"contexts": "one"}, "contexts: is not valid; allowed: a list of texts"),
        ({"logprobs": ["a"]}, "logprobs: is not valid; allowed: a list of numbers"),
        ({"mean_logprob": 10**400, "reasoning": "\ud800"}, "mean_logprob: is not valid; allowed: a number"),
        ({"mean_logprob": "a"}, "mean_logprob: is not valid; allowed: a number"),
        ({"response_format": "json"}, "response_format: is not valid; allowed: an object"),
        ({"labels": {"a": 1}}, "labels: is not valid; allowed: an object of texts"),
    ],
)
def test_what_is_wrong_is_one_clear_line(record: Any, problem: str) -> None:
    if isinstance(record, dict) and record and "response" not in record:
        record = {"response": "x", **record}
    with pytest.raises(WireError) as refused:
        read(json.dumps(record), "samples.jsonl:17")
    assert str(refused.value).startswith(f"samples.jsonl:17: {problem}")
    assert "\n" not in str(refused.value)


def test_a_line_that_is_no_json_is_named() -> None:
    with pytest.raises(WireError, match=r"^samples.jsonl:3: not JSON: Expecting value at character 0$"):
        read(b"oops", "samples.jsonl:3")


def test_a_sample_that_no_writer_takes_is_one_clear_line() -> None:
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"x": deep}
    with pytest.raises(WireError, match=r"^sample 'a': cannot be written as JSON$"):
        write(Sample(response="", id="a", response_format=deep))


def test_a_line_of_a_file_is_a_sample_with_what_the_evaluator_knows() -> None:
    meta = {"tap": "file", "kind": "jsonl", "file": "s.jsonl", "line": 4, "time": 9.0}
    defaults = Defaults("m", "api", "host:1")
    assert Decoder(defaults).decode(Envelope(meta, [b'{"response": "x"}\n'])) == [
        Sample(response="x", time=9.0, model="m", endpoint="api", replica="host:1", tap="file")
    ]
    theirs = {"response": "x", "time": 1.0, "model": "n", "endpoint": "e", "replica": "r", "tap": "proxy"}
    assert Decoder(defaults).decode(Envelope(meta, [orjson.dumps(theirs)])) == [
        Sample(response="x", time=1.0, model="n", endpoint="e", replica="r", tap="file")
    ]
    assert Decoder(defaults).decode(Envelope(meta, [b"  \n"])) == []
    with pytest.raises(WireError, match=r"^s\.jsonl:4: response: is missing"):
        Decoder(defaults).decode(Envelope(meta, [b"{}"]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXT, children, max_size=3),
    max_leaves=8,
)
FIELDS = [*Sample.__dataclass_fields__, "usage"]


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4) | st.binary(max_size=40))
def test_any_line_is_a_sample_or_a_clear_line(record: Any) -> None:
    line = record if isinstance(record, bytes) else json.dumps({"response": "", **record}).encode()
    try:
        sample = read(line, "f:1")
    except WireError as error:
        assert str(error).startswith("f:1: ")
        assert "\n" not in str(error)
    else:
        assert isinstance(sample.response, str)


def test_the_documented_keys_are_those_that_are_read() -> None:
    page = (Path(__file__).parent.parent / "docs" / "samples.md").read_text(encoding="utf-8")
    table = page.partition("## Recorded samples")[2].partition("## APIs")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    documented = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    assert documented == {*FIELDS} - {"prompt_tokens", "completion_tokens"}
    for line in table.splitlines():
        if line.startswith("{"):
            assert read(line).response == "Paris."
