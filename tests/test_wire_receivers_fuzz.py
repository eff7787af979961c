"""The receivers' decoders read whatever they are given, or say in one line that they cannot."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import senders

from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.sample import Sample
from palegreen.evaluators.wire import feedback, litellm
from palegreen.evaluators.wire.cloudevents import REQUEST, RESPONSE, CloudEvents
from palegreen.evaluators.wire.errors import WireError
from palegreen.evaluators.wire.otlp import Otlp

Decoder = Callable[[Envelope], list[Any]]
META: dict[str, dict[str, Any]] = {
    "otlp-traces protobuf": {"kind": "otlp-traces", "content_type": "application/x-protobuf"},
    "otlp-traces json": {"kind": "otlp-traces", "content_type": "application/json"},
    "otlp-logs protobuf": {"kind": "otlp-logs", "content_type": "application/x-protobuf"},
    "otlp-logs json": {"kind": "otlp-logs", "content_type": "application/json"},
    "cloudevent": {"kind": "cloudevent", "headers": {"ce-id": "1", "ce-type": REQUEST}},
    "cloudevent answer": {"kind": "cloudevent", "headers": {"ce-id": "1", "ce-type": RESPONSE}},
    "cloudevent structured": {"kind": "cloudevent", "content_type": "application/cloudevents+json"},
    "litellm": {"kind": "litellm", "content_type": "application/json"},
    "feedback": {"kind": "feedback"},
}


def decoder(kind: str) -> Decoder:
    if kind.startswith("otlp"):
        return Otlp(wait=0).decode
    if kind.startswith("cloudevent"):
        return CloudEvents(senders.decode_http, response_wait=0).decode
    if kind == "litellm":
        return lambda envelope: litellm.decode(envelope, senders.decode_http)
    return lambda envelope: list(feedback.decode(envelope))


@cache
def bodies(kind: str) -> list[bytes]:
    """Bodies of that kind as real senders send them."""
    if kind.startswith("otlp"):
        path = "/v1/" + kind.split()[0].removeprefix("otlp-")
        posts = [
            post
            for sender in senders.OTLP_SENDERS
            for name in senders.exchanges()
            for post in senders.otlp(sender, name)
            if post.path == path
        ]
        return [senders.as_json(post).body if kind.endswith("json") else post.body for post in posts]
    if kind == "litellm":
        return [post.body for log_format in senders.LITELLM_FORMATS for post in senders.litellm(log_format)]
    if kind == "feedback":
        return [b'{"response_id": "r", "score": 0.7}', b'{"id": "r", "kind": "thumbs_up"}']
    events = [post for name in senders.exchanges() for post in senders.kserve(name)]
    if kind == "cloudevent structured":
        return [
            json.dumps({"id": "1", "type": post.headers["ce-type"], "data": post.body.decode()}).encode()
            for post in events
        ]
    return [post.body for post in events if post.headers["ce-type"] == META[kind]["headers"]["ce-type"]]


def read(kind: str, body: bytes, **more: Any) -> None:
    """Decode; whatever comes out is well-formed, and whatever is raised is one line."""
    try:
        found = decoder(kind)(Envelope({"tap": "t", "time": 1.0} | META[kind] | more, [body]))
    except WireError as error:
        assert "\n" not in str(error)
        return
    for one in found:
        if isinstance(one, Sample):
            assert isinstance(one.response, str)
            json.dumps([one.messages, one.tool_calls, one.tools, one.labels]).encode()
            assert one.prompt is not None


@pytest.mark.parametrize("kind", META)
@settings(max_examples=60)
@given(body=st.binary(max_size=200), encoding=st.sampled_from(["", "gzip", "deflate", "what"]))
def test_arbitrary_bytes_are_read_or_refused(kind: str, body: bytes, encoding: str) -> None:
    read(kind, body, content_encoding=encoding)


@pytest.mark.parametrize("kind", META)
@settings(max_examples=60)
@given(data=st.data())
def test_captures_with_bytes_changed_are_read_or_refused(kind: str, data: st.DataObject) -> None:
    body = bytearray(data.draw(st.sampled_from(bodies(kind))))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(body) - 1))
        change = data.draw(st.sampled_from(["replace", "delete", "insert", "cut"]))
        if change == "replace":
            body[at] = data.draw(st.integers(0, 255))
        elif change == "delete":
            del body[at : at + data.draw(st.integers(1, 20))]
        elif change == "insert":
            body[at:at] = data.draw(st.binary(max_size=8))
        else:
            del body[at:]
        if not body:
            break
    read(kind, bytes(body))


def mutated(value: Any, data: st.DataObject) -> Any:
    """The JSON value with one value in it of another type."""
    odd = st.sampled_from([None, True, 0, -1, 1e308, "", "x", "{", [], {}, [None], {"a": 1}, [[1]], 1 << 70])
    if isinstance(value, dict) and value and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(sorted(value)))
        return value | {key: mutated(value[key], data)}
    if isinstance(value, list) and value and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(value) - 1))
        return [*value[:at], mutated(value[at], data), *value[at + 1 :]]
    return data.draw(odd)


@pytest.mark.parametrize("kind", [kind for kind in META if "protobuf" not in kind])
@settings(max_examples=60)
@given(data=st.data())
def test_captures_with_a_value_of_another_type_are_read_or_refused(kind: str, data: st.DataObject) -> None:
    body = data.draw(st.sampled_from(bodies(kind)))
    with contextlib.suppress(json.JSONDecodeError):  # a stream, or lines of JSON
        body = json.dumps(mutated(json.loads(body), data)).encode()
    read(kind, body)


@pytest.mark.parametrize("kind", META)
def test_a_bomb_is_refused(kind: str) -> None:
    bomb = gzip.compress(b" " * (65 << 20))
    envelope = Envelope({"tap": "t", "time": 1.0, "content_encoding": "gzip"} | META[kind], [bomb])
    with pytest.raises(WireError, match=r"gzip data of more than \d+ bytes"):
        decoder(kind)(envelope)
