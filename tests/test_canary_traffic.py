"""Canaries are a traffic class of their own: whichever tap sees them, they are received and are no user's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.asgi import Receiver, Uvicorn
from support.proxying import CHAT, Upstream, answering, ok, post, proxied
from support.waiting import until

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.pipeline import Pipeline
from palegreen.inprocess.asgi import Tap

REQUEST = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "user": "palegreen-canary"}
RESPONSE = {"model": "small", "choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]}


def scored(envelope: Envelope) -> dict[str, str]:
    """Series of what was and was not scored."""
    pipeline = Pipeline(EvaluateConfig(sink_address="127.0.0.1:0", embedder="none"))
    pipeline.score([envelope])
    lines = pipeline.readings().lines
    return {name: lines.get(f"palegreen_{name}", "") for name in ("quality_samples_total", "tap_unsampled_total")}


def test_the_proxy_counts_a_canary_and_holds_nothing_of_it_whatever_else_it_says() -> None:
    failed = ok(b"{}", status="500 Oops")
    with Upstream(answering(failed)) as failing, proxied(failing.url) as proxy:
        assert proxy.pipelined(post(b"{}", CHAT, "X-Palegreen-Canary: 1"), len(failed)) == failed
        until(lambda: proxy.metric('palegreen_tap_unsampled_total{tap="proxy",reason="canary"}') == 1)
        assert not proxy.envelopes
    canary, user = post(b"{}", CHAT, "X-Palegreen-Canary: 1", "X-Palegreen-Keep: 1"), post(b'{"of": "a user"}')
    with Upstream(answering(ok(), ok())) as upstream, proxied(upstream.url) as proxy:
        assert proxy.pipelined(canary + user, 2 * len(ok())) == 2 * ok()
        assert [parts[0] for _, parts in until(lambda: proxy.envelopes)] == [b'{"of": "a user"}']
        assert proxy.metric('palegreen_tap_received_total{tap="proxy"}') == 2
        assert proxy.metric('palegreen_tap_unsampled_total{tap="proxy",reason="canary"}') == 1
        assert proxy.metric("palegreen_proxy_request_duration_seconds_count") == 1


def test_the_asgi_tap_counts_a_canary_and_hands_no_record_over(tmp_path: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})

    socket = tmp_path / "tap.sock"
    with Receiver(socket) as receiver, Uvicorn(Tap(app, socket=str(socket))) as server:
        server.exchange(b"canary", x_palegreen_canary="1", x_palegreen_keep="1")
        server.exchange(b"user")
        until(lambda: receiver.metric('palegreen_tap_received_total{tap="asgi"}') == 2)
        assert len(receiver.wait()) == 1
        assert receiver.envelopes[0].meta["sampled"] == "rate"
        assert receiver.metric('palegreen_tap_unsampled_total{tap="asgi",reason="canary"}') == 1


@pytest.mark.parametrize("user", ["palegreen-canary", "anna"])
def test_a_canary_that_a_gateway_tells_of_is_known_by_its_user(user: str) -> None:
    payload = {
        "call_type": "completion", "status": "success", "model": "small", "messages": REQUEST["messages"],
        "response": RESPONSE, "model_parameters": {"user": user}, "id": "x",
    }  # fmt: skip
    exchange = Envelope(
        {"tap": "kserve", "kind": "http", "method": "POST", "path": "/v1/chat/completions", "status": 200},
        [json.dumps(REQUEST | {"user": user}).encode(), json.dumps(RESPONSE).encode()],
    )
    litellm = Envelope({"tap": "litellm", "kind": "litellm"}, [json.dumps(payload).encode()])
    for envelope in (exchange, litellm):
        found = scored(envelope)
        assert bool(found["quality_samples_total"]) == (user == "anna")
        assert ('reason="canary"} 1.0' in found["tap_unsampled_total"]) == (user != "anna")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("http.request.header.x-palegreen-canary", {"arrayValue": {"values": [{"stringValue": "1"}]}}),
        ("user.id", {"stringValue": "palegreen-canary"}),
        ("gen_ai.conversation.id", {"stringValue": "palegreen-canary"}),
    ],
)
def test_a_canary_in_telemetry_is_known_by_its_header_or_its_user(key: str, value: dict[str, Any]) -> None:
    span = {
        "name": "chat small", "traceId": "0" * 31 + "1", "spanId": "0" * 15 + "1",
        "startTimeUnixNano": "1000000000", "endTimeUnixNano": "2000000000",
        "attributes": [
            {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
            {"key": "gen_ai.completion.0.content", "value": {"stringValue": "hello"}},
            {"key": key, "value": value},
        ],
    }  # fmt: skip
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
    meta = {"tap": "otlp", "kind": "otlp-traces", "content_type": "application/json", "sampled": "rate"}
    pipeline = Pipeline(EvaluateConfig(sink_address="127.0.0.1:0", embedder="none"))
    pipeline.score([Envelope(meta, [body])])

    def seen() -> str:
        pipeline.score([])  # a span waits for events that may come after it
        return pipeline.readings().lines.get("palegreen_tap_unsampled_total", "")

    until(lambda: 'reason="canary"} 1.0' in seen(), 30)
    assert "palegreen_quality_samples_total" not in pipeline.readings().lines
