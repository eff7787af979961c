"""One exchange, whichever tap it comes by, is one and the same sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import orjson
import pytest
from support import senders
from support.receivers import Receivers

from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.sample import Observation, Sample
from palegreen.evaluators.wire import litellm
from palegreen.evaluators.wire.cloudevents import CloudEvents
from palegreen.evaluators.wire.otlp import Otlp

EXCHANGES = ("plain", "streamed", "tools", "choices", "failure")
SERVICES = {"/v1/traces": "trace.v1.TraceService", "/v1/logs": "logs.v1.LogsService"}
OPENTELEMETRY = ("trace_id", "ttft_seconds", "duration_seconds", "time", "tap", "route", "status")

# What a sender leaves out; all the rest is compared. Seen in the captures, not in any documentation.
LEAVES_OUT: dict[str, tuple[str, ...]] = {
    "openllmetry": OPENTELEMETRY,
    "openllmetry-events": (*OPENTELEMETRY, "tools", "tool_call_id"),
    "openai-v2": (*OPENTELEMETRY, "tools", "system_fingerprint"),
    "openai-v2-latest-span": (*OPENTELEMETRY, "tools"),
    "openai-v2-latest-event": (*OPENTELEMETRY, "tools"),
    "openinference": OPENTELEMETRY,
    "litellm": ("ttft_seconds", "duration_seconds", "time", "tap", "labels", "team", "session", "reasoning_tokens"),
    "kserve": ("duration_seconds", "time", "tap", "labels", "session", "endpoint"),
}
# Further, of single exchanges.
LEAVES_OUT_OF = {
    ("openllmetry", "streamed"): ("system_fingerprint",),
    ("openai-v2-latest-span", "streamed"): ("system_fingerprint",),
    ("openai-v2-latest-event", "streamed"): ("system_fingerprint",),
    # Of a stream its choice carries no span id, so nobody can tell whose it is.
    ("openllmetry-events", "streamed"): ("system_fingerprint", "response", "truncated"),
    ("litellm", "streamed"): ("model",),  # its own name for it
    # An error has no id of its own, and each client words it in its way.
    **{(sender, "failure"): ("id", "error") for sender in LEAVES_OUT},
}


@pytest.fixture(scope="module")
def receivers() -> Iterator[Receivers]:
    with Receivers() as running:
        yield running


def told(samples: list[Observation], left_out: tuple[str, ...]) -> list[dict[str, Any]]:
    """Samples as JSON tells them, without the fields that the sender leaves out; arguments of tools by their value."""
    rows = []
    for sample in (sample for sample in samples if isinstance(sample, Sample)):
        row = orjson.loads(orjson.dumps(sample))
        calls = [*row["tool_calls"], *(call for said in row["messages"] for call in said.get("tool_calls", []))]
        for call in calls:
            call["arguments"] = orjson.loads(call["arguments"])
        if "tool_call_id" in left_out:
            row["messages"] = [{k: v for k, v in said.items() if k != "tool_call_id"} for said in row["messages"]]
        rows.append({key: value for key, value in row.items() if key not in left_out})
    return rows


def expected(sender: str, name: str) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    left_out = LEAVES_OUT[sender] + LEAVES_OUT_OF.get((sender, name), ())
    return told(list(senders.proxied(name)), left_out), left_out


def received(receivers: Receivers, posts: list[senders.Post]) -> list[Envelope]:
    receivers.envelopes.clear()
    for post in posts:
        status, _, _ = receivers.post(post.path, post.body, **post.headers)
        assert status == 200
    return receivers.envelopes[:]


def by_grpc(receivers: Receivers, posts: list[senders.Post]) -> list[Envelope]:
    receivers.envelopes.clear()
    with grpc.insecure_channel(f"127.0.0.1:{receivers.grpc.port}", compression=grpc.Compression.Gzip) as channel:
        for post in posts:
            channel.unary_unary(f"/opentelemetry.proto.collector.{SERVICES[post.path]}/Export")(post.body, timeout=20)
    return receivers.envelopes[:]


def by_json(receivers: Receivers, posts: list[senders.Post]) -> list[Envelope]:
    return received(receivers, [senders.as_json(post) for post in posts])


@pytest.mark.parametrize("transport", [received, by_grpc, by_json], ids=["protobuf", "grpc", "json"])
@pytest.mark.parametrize("name", EXCHANGES)
@pytest.mark.parametrize("sender", senders.OTLP_SENDERS)
def test_an_instrumentations_span_and_events_are_the_proxied_exchanges_sample(
    receivers: Receivers, transport: Callable[..., list[Envelope]], sender: str, name: str
) -> None:
    now = [0.0]
    decoder = Otlp(clock=lambda: now[0])
    envelopes = transport(receivers, senders.otlp(sender, name))
    found = [one for envelope in envelopes for one in decoder.decode(envelope)]
    now[0] = 60.0
    found += decoder.due()
    wanted, left_out = expected(sender, name)
    assert told(found, left_out) == wanted


@pytest.mark.parametrize("log_format", senders.LITELLM_FORMATS)
def test_a_payload_of_litellm_is_the_proxied_exchanges_sample(receivers: Receivers, log_format: str) -> None:
    envelopes = received(receivers, senders.litellm(log_format))
    found = [one for envelope in envelopes for one in litellm.decode(envelope, senders.decode_http)]
    for name in EXCHANGES:
        wanted, left_out = expected("litellm", name)
        mine = [one for one in found if isinstance(one, Sample) and one.labels["tags"] == f"recorded,{name}"]
        assert told(list(mine), left_out) == wanted
        assert {(one.team, one.session) for one in mine} == {("search", "s-1")}


@pytest.mark.parametrize("name", [name for name in EXCHANGES if name != "failure"])  # KServe logs only status 200
def test_two_events_of_kserve_are_the_proxied_exchanges_sample(receivers: Receivers, name: str) -> None:
    decoder = CloudEvents(senders.decode_http)
    envelopes = received(receivers, list(senders.kserve(name)))
    found = [one for envelope in envelopes for one in decoder.decode(envelope)]
    wanted, left_out = expected("kserve", name)
    assert told(found, left_out) == wanted
    first = found[0]
    assert isinstance(first, Sample)
    assert (first.endpoint, first.session, first.duration_seconds) == ("assistant", "s-1", 1.0)
    assert first.labels == {"namespace": "prod", "component": "predictor", "kserve_endpoint": "default"}
