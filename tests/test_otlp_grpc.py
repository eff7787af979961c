"""OTLP over gRPC, with the real exporters of OpenTelemetry's SDK (and over HTTP too, where they are the same)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from support.receivers import LOCAL, Receivers, counted
from support.waiting import until

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.sample import Sample, Step
from palegreen.evaluators.taps.otlp_grpc import OtlpGrpc
from palegreen.evaluators.wire.otlp import Otlp
from palegreen.runtime.tally import Tally
from palegreen.runtime.web import ListenError

EXPORT = "/opentelemetry.proto.collector.{}/Export"
TRACES, LOGS, METRICS = "trace.v1.TraceService", "logs.v1.LogsService", "metrics.v1.MetricsService"


@pytest.fixture(scope="module")
def running() -> Iterator[Receivers]:
    with Receivers() as receivers:
        yield receivers


@pytest.fixture
def receivers(running: Receivers) -> Receivers:
    running.envelopes.clear()
    return running


def call(receivers: Receivers, service: str, body: bytes, compression: grpc.Compression | None = None) -> bytes:
    with grpc.insecure_channel(f"127.0.0.1:{receivers.grpc.port}", compression=compression) as channel:
        answer: bytes = channel.unary_unary(EXPORT.format(service))(body, timeout=30)
        return answer


@pytest.mark.parametrize("transport", ["grpc", "grpc gzip", "http", "http gzip"])
def test_a_span_of_the_sdks_real_exporter_is_a_sample_and_a_step(receivers: Receivers, transport: str) -> None:
    exporter: SpanExporter
    if transport.startswith("grpc"):
        compression = grpc.Compression.Gzip if "gzip" in transport else grpc.Compression.NoCompression
        exporter = GrpcExporter(endpoint=f"127.0.0.1:{receivers.grpc.port}", insecure=True, compression=compression)
    else:
        zipped = Compression.Gzip if "gzip" in transport else Compression.NoCompression
        exporter = HttpExporter(endpoint=f"{receivers.url}/v1/traces", compression=zipped)
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("t").start_as_current_span("chat small") as span:
        span.set_attribute("gen_ai.operation.name", "chat")
        span.set_attribute("gen_ai.request.model", "small")
        said = '[{"role": "assistant", "parts": [{"type": "text", "content": "Paris."}], "finish_reason": "stop"}]'
        span.set_attribute("gen_ai.output.messages", said)
    provider.shutdown()
    [envelope] = receivers.envelopes
    step, sample = Otlp().decode(envelope)
    assert isinstance(step, Step)
    assert isinstance(sample, Sample)
    assert (step.kind, step.name, sample.response, sample.finish_reason) == ("model", "small", "Paris.", "stop")
    assert sample.trace_id == format(span.get_span_context().trace_id, "032x")


def test_requests_of_each_signal_are_answered_and_metrics_thrown_away(receivers: Receivers) -> None:
    assert [call(receivers, service, b"\x00bytes") for service in (TRACES, LOGS, METRICS)] == [b"", b"", b""]
    assert [envelope.meta["kind"] for envelope in receivers.envelopes] == ["otlp-traces", "otlp-logs"]
    assert [envelope.parts for envelope in receivers.envelopes] == [[b"\x00bytes"]] * 2


def test_a_request_over_the_limit_is_refused_whether_it_is_compressed_or_not() -> None:
    with Receivers(body_limit=1 << 16) as small:
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            with pytest.raises(grpc.RpcError) as refused:
                call(small, TRACES, b"x" * (30 << 20), compression)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        call(small, TRACES, b"x" * (1 << 20))
        assert len(small.envelopes) == 1


def test_senders_that_stall_are_ended_and_what_finds_no_room_meanwhile_is_dropped_and_counted() -> None:
    with (
        Receivers(grpc_times={"room_seconds": 0.05, "read_seconds": 3.0}, queue_limit=1) as small,
        grpc.insecure_channel(f"127.0.0.1:{small.grpc.port}") as channel,
    ):
        silence = threading.Event()
        export = channel.stream_unary(EXPORT.format(TRACES))
        stalled = [export.future(iter(silence.wait, True)) for _ in range(2)]  # two are read at once, at the least
        until(lambda: counted(small.tally).get("tap_received_total otlp") == 2)
        assert call(small, TRACES, b"no room") == b""
        assert counted(small.tally)["tap_dropped_total otlp queue_full"] == 1
        assert {one.exception().code() for one in stalled} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        silence.set()
        call(small, TRACES, b"room again")
        assert [envelope.parts for envelope in small.envelopes] == [[b"room again"]]


def test_more_than_the_usual_four_mebibytes_are_taken(receivers: Receivers) -> None:
    call(receivers, TRACES, b"x" * (10 << 20))
    assert receivers.envelopes[0].size > 10 << 20


def test_each_request_counts_as_received(receivers: Receivers) -> None:
    before = counted(receivers.tally).get("tap_received_total otlp", 0)
    call(receivers, TRACES, b"")
    assert counted(receivers.tally)["tap_received_total otlp"] == before + 1


def test_an_unknown_service_is_unimplemented(receivers: Receivers) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        call(receivers, "profiles.v1.ProfilesService", b"")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_port_that_is_taken_is_one_line(receivers: Receivers) -> None:
    async def second() -> None:
        config = EvaluateConfig(otlp_grpc_address=f"127.0.0.1:{receivers.grpc.port}")
        await OtlpGrpc(config, lambda _: None, Tally(("endpoint", "instance", "namespace", "pod"))).start()

    with pytest.raises(ListenError, match=r"^cannot listen on 127\.0\.0\.1:\d+: taken, not permitted"):
        asyncio.run(second())


def test_a_server_that_was_never_started_can_be_stopped() -> None:
    server = OtlpGrpc(
        EvaluateConfig(otlp_grpc_address=LOCAL), lambda _: None, Tally(("endpoint", "instance", "namespace", "pod"))
    )
    asyncio.run(server.stop())
