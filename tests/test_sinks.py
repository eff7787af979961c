"""The HTTP receivers: what they take, what they answer, and that no sender can hurt them."""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from support.receivers import LOCAL, Receivers, counted
from support.waiting import until

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.taps.sinks import BATCH, Sinks
from palegreen.evaluators.wire import feedback
from palegreen.runtime.tally import Tally
from palegreen.runtime.web import ListenError

PROTOBUF, JSON = "application/x-protobuf", "application/json"
MIB = 1 << 20


@pytest.fixture(scope="module")
def running() -> Iterator[Receivers]:
    with Receivers() as receivers:
        yield receivers


@pytest.fixture
def receivers(running: Receivers) -> Receivers:
    running.envelopes.clear()
    return running


@pytest.mark.parametrize(
    ("path", "kind", "tap", "headers"),
    [
        ("/v1/traces", "otlp-traces", "otlp", {"content_type": PROTOBUF}),
        ("/v1/logs/", "otlp-logs", "otlp", {"content_type": f"{JSON}; charset=utf-8"}),
        ("/", "cloudevent", "kserve", {"ce_id": "1", "ce_type": "t"}),
        ("/cloudevents", "cloudevent", "kserve", {"content_type": "application/cloudevents-batch+json"}),
        ("/litellm?x=1", "litellm", "litellm", {"content_type": JSON}),
    ],
)
def test_a_post_is_put_as_it_came_with_what_is_known_of_it(
    receivers: Receivers, path: str, kind: str, tap: str, headers: dict[str, str]
) -> None:
    status, _, _ = receivers.post(path, b"\x00not parsed", content_encoding="gzip", **headers)
    assert status == 200
    [envelope] = receivers.envelopes
    assert envelope.parts == [b"\x00not parsed"]
    assert (envelope.meta["kind"], envelope.meta["tap"]) == (kind, tap)
    assert envelope.meta["content_encoding"] == "gzip"
    assert envelope.meta["content_type"] == headers.get("content_type", "")
    assert envelope.meta.get("headers", {}) == {k.replace("_", "-"): v for k, v in headers.items() if k[:3] == "ce_"}


def test_otlp_is_answered_in_the_senders_format(receivers: Receivers) -> None:
    for path, answered in (("/v1/traces", ExportTraceServiceResponse), ("/v1/logs", ExportLogsServiceResponse)):
        status, body, headers = receivers.post(path, b"", content_type=PROTOBUF)
        assert (status, headers["content-type"], answered.FromString(body)) == (200, PROTOBUF, answered())
        status, body, headers = receivers.post(path, b"{}", content_type=JSON)
        assert (status, headers["content-type"], json.loads(body)) == (200, JSON, {})


def test_metrics_are_accepted_with_a_warning_so_that_they_are_not_sent_again(receivers: Receivers) -> None:
    status, body, _ = receivers.post("/v1/metrics", b"x" * 1000, content_type=PROTOBUF)
    told = ExportMetricsServiceResponse.FromString(body).partial_success
    assert (status, told.rejected_data_points) == (200, 0)
    assert told.error_message == "metrics are not taken here; send traces and logs"
    _, body, _ = receivers.post("/v1/metrics", b"{}", content_type=JSON)
    assert json.loads(body) == {"partialSuccess": {"errorMessage": told.error_message}}
    assert receivers.envelopes == []


def test_otlp_errors_are_statuses_of_google_rpc(receivers: Receivers) -> None:
    from google.rpc.status_pb2 import Status  # comes with the exporter, not with the evaluator

    status, body, headers = receivers.post("/v1/traces", b"", content_type=PROTOBUF, content_encoding="zstd")
    read = Status.FromString(body)
    assert (status, headers["content-type"]) == (415, PROTOBUF)
    assert (read.code, read.message) == (3, "content-encoding; allowed: gzip, identity")
    status, body, _ = receivers.post("/v1/traces", b"", content_type=JSON, content_encoding="zstd")
    assert (status, json.loads(body)["code"]) == (415, 3)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "line"),
    [
        ("GET", "/litellm", {}, 405, "allowed: POST"),
        ("POST", "/v1/nothing", {}, 404, "no receiver at this path; allowed: /v1/traces, /v1/logs"),
        ("POST", "/", {"ce_type": "t"}, 400, "not a CloudEvent: header ce-id is missing"),
        ("POST", "/litellm", {"content_encoding": "br"}, 415, "content-encoding; allowed: gzip, identity"),
    ],
)
def test_what_is_not_taken_is_refused_in_one_line(
    receivers: Receivers, method: str, path: str, headers: dict[str, str], status: int, line: str
) -> None:
    answered, body, _ = receivers.post(path, b"x", method, **headers)
    assert answered == status
    assert body.decode().startswith(line)
    assert body.count(b"\n") == 1
    assert receivers.envelopes == []


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"response_id": "r", "kind": "thumbs_up"}, "thumbs_up"),
        ({"id": "r", "kind": "thumbs_down"}, "thumbs_down"),
        ({"response_id": "r", "score": 1}, "thumbs_up"),
        ({"response_id": "r", "score": 0.9}, "thumbs_up"),
        ({"response_id": "r", "score": 0}, "thumbs_down"),
        ({"response_id": "r", "score": -1}, "thumbs_down"),
    ],
)
def test_feedback_says_up_or_down_of_a_response(receivers: Receivers, given: dict[str, object], kind: str) -> None:
    for body, encoding in (
        (json.dumps(given).encode(), "identity"),
        (gzip.compress(json.dumps(given).encode()), "gzip"),
    ):
        receivers.envelopes.clear()
        status, _, _ = receivers.post("/feedback", body, content_type=JSON, content_encoding=encoding)
        [told] = feedback.decode(receivers.envelopes[0])
        assert (status, told.kind, told.response_id, told.tap) == (200, kind, "r", "feedback")
        assert told.time > 1e9


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{", b"\xff", b'{"response_id": "r"}', b'{"kind": "thumbs_up"}',
        b'{"response_id": "r", "kind": "meh"}', b'{"response_id": "r", "score": 0.5}',
        b'{"response_id": "r", "score": 2}', b'{"response_id": "r", "score": true}',
        b'{"response_id": 7, "score": 1}', b'{"response_id": "r", "score": NaN}',
        b'{"response_id": "' + b"r" * 300 + b'", "score": 1}',
    ],
)  # fmt: skip
def test_feedback_that_says_neither_is_refused_in_one_line(receivers: Receivers, body: bytes) -> None:
    status, line, _ = receivers.post("/feedback", body)
    assert (status, line.count(b"\n")) == (400, 1)
    assert line.startswith(b"feedback")
    assert receivers.envelopes == []


def test_a_hundred_megabytes_are_refused_and_counted_without_being_held(receivers: Receivers) -> None:
    chunk = b"x" * MIB
    status, _, _ = receivers.post("/litellm", chunk)  # the server has its memory
    assert status == 200
    before = counted(receivers.tally).get("tap_dropped_total litellm too_large", 0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for declared in (True, False):
        headers = {"content_length": str(100 * MIB)} if declared else {"transfer_encoding": "chunked"}
        framed = iter([chunk] * 100) if declared else iter([b"%x\r\n%s\r\n" % (MIB, chunk)] * 100 + [b"0\r\n\r\n"])
        status, line, _ = receivers.post("/litellm", framed, **headers)
        assert (status, line) == (413, b"a body of more than %d bytes; allowed: at most that\n" % (BATCH * MIB))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 60 << 10  # KiB; 20 MiB may be held at a time
    assert counted(receivers.tally)["tap_dropped_total litellm too_large"] == before + 2


def test_a_limit_of_the_configuration_moves_that_of_a_post() -> None:
    with Receivers(body_limit=1024) as small:
        assert small.post("/v1/traces", b"x" * 1024 * BATCH, content_type=PROTOBUF)[0] == 200
        status, body, _ = small.post("/v1/traces", b"x" * (1024 * BATCH + 1), content_type=PROTOBUF)
        assert status == 413
        assert b"a body of more than 20480 bytes" in body


def test_bodies_that_come_at_once_and_have_no_room_are_dropped_counted_and_answered_with_success() -> None:
    with Receivers(body_limit=1 << 16, queue_limit=1 << 16) as small:
        whole = BATCH << 16
        held = socket.create_connection(("127.0.0.1", small.sinks.port))
        held.sendall(b"POST /litellm HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % whole + b"x" * (whole - 1))
        until(lambda: small.sinks._held == whole - 1)
        status, _, _ = small.post("/litellm", b"y" * 100)
        assert status == 200
        assert counted(small.tally)["tap_dropped_total litellm queue_full"] == 1
        held.close()
        until(lambda: small.sinks._held == 0)
        assert small.post("/litellm", b"y" * 100)[0] == 200
        assert [envelope.parts for envelope in small.envelopes] == [[b"y" * 100]]


def test_a_client_that_goes_away_in_the_middle_leaves_nothing() -> None:
    with Receivers() as running:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", running.sinks.port)) as client:
                client.sendall(b"POST /litellm HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf")
        assert running.post("/litellm", b"[]")[0] == 200
        until(lambda: running.sinks._held == 0)
        assert len(running.envelopes) == 1


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    head=st.sampled_from([b"", b"POST / HTTP/1.1\r\n", b"POST /v1/traces HTTP/1.1\r\nhost: x\r\n", b"GET /\r\n\r\n"]),
    rest=st.binary(max_size=300) | st.lists(st.sampled_from(
        [b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", b"content-encoding: \xff\r\n", b"\r\n", b"zz\r\n",
         b"ce-id: \x80\r\n", b"ce-type: t\r\n", b"content-type: application/json\r\n", b"5\r\nabcde\r\n", b"0\r\n\r\n"]
    )).map(b"".join),
)  # fmt: skip
def test_arbitrary_bytes_on_a_connection_never_break_the_receivers(
    receivers: Receivers, head: bytes, rest: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", receivers.sinks.port), timeout=10) as client:
        client.sendall(head + rest)
        client.shutdown(socket.SHUT_WR)
        answer = client.recv(1 << 16)
    assert answer == b"" or (answer.startswith(b"HTTP/1.1 ") and not answer.startswith(b"HTTP/1.1 5"))
    assert receivers.post("/v1/traces", b"", content_type=PROTOBUF)[0] == 200


def test_each_post_counts_as_received(receivers: Receivers) -> None:
    before = counted(receivers.tally).get("tap_received_total litellm", 0)
    receivers.post("/litellm", b"[]")
    receivers.post("/litellm", b"[]")
    assert counted(receivers.tally)["tap_received_total litellm"] == before + 2


def test_an_address_that_is_taken_is_one_line(receivers: Receivers) -> None:
    config = EvaluateConfig(sink_address=f"127.0.0.1:{receivers.sinks.port}")
    with pytest.raises(ListenError, match=r"^cannot listen on 127\.0\.0\.1:\d+: Address already in use$"):
        Sinks(config, lambda _: None, Tally(("endpoint", "instance", "namespace", "pod")))


def test_receivers_that_were_never_started_can_be_stopped() -> None:
    sinks = Sinks(
        EvaluateConfig(sink_address=LOCAL), lambda _: None, Tally(("endpoint", "instance", "namespace", "pod"))
    )
    asyncio.run(sinks.stop())
