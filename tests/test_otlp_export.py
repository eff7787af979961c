"""What leaves by OTLP, at a real receiver, over both transports."""

from __future__ import annotations

import logging
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.chatting import Chat, Evaluator, write
from support.daemon import Daemon, run
from support.otlp import GrpcReceiver, HttpReceiver, attributes
from support.server import Server, response
from support.waiting import until

from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.events import EvaluationEvents
from palegreen.evaluators.sample import Sample
from palegreen.runtime.exposition import Collected, Exposition
from palegreen.runtime.otlp.config import OtlpExportConfig
from palegreen.runtime.otlp.metrics import OtlpMetrics
from palegreen.runtime.yamlfile import ConfigError

Receiver = GrpcReceiver | HttpReceiver
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(params=[GrpcReceiver, HttpReceiver], ids=["grpc", "http"])
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    with request.param() as running:
        yield running


def config(receiver: Receiver, **more: object) -> OtlpExportConfig:
    return OtlpExportConfig.model_validate({"endpoint": receiver.endpoint, "protocol": receiver.protocol} | more)


def gpu(used: float = 30e9, received: float = 100.0) -> bytes:
    collected = Collected("GPU-1", "0", "")
    collected.add("palegreen_gpu_info", 1, "NVIDIA H100", "0000:01:00.0", "570.1", "12.8", "disabled", "false")
    collected.add("palegreen_gpu_utilization_ratio", 0.5)
    collected.add("palegreen_gpu_memory_total_bytes", 80e9)
    collected.add("palegreen_gpu_memory_used_bytes", used)
    collected.add("palegreen_gpu_pcie_rx_bytes_total", received)
    collected.add("palegreen_gpu_pcie_tx_bytes_total", 7)
    collected.add("palegreen_gpu_power_watts", 300)
    return Exposition([collected.readings()]).body()


def engine(count: float = 5) -> bytes:
    collected = Collected("llama", "chat", "vllm", "prod/llama-0", "prod", "llama-0")
    buckets = [(0.1, 1.0), (0.5, 3.0), (float("inf"), count)]
    collected.histogram("palegreen_engine_request_duration_seconds", buckets, 2.5, count)
    collected.histogram("palegreen_engine_queue_duration_seconds", buckets, 2.5, count)
    return Exposition([collected.readings()]).body()


@pytest.fixture
def page() -> list[bytes]:
    return [b""]


@pytest.fixture
def exporter(receiver: Receiver, page: list[bytes]) -> Iterator[OtlpMetrics]:
    made = OtlpMetrics(config(receiver), {"service.name": "palegreen-node"}, lambda: page[0])
    yield made
    made.stop()


def test_gpus_are_told_in_the_names_of_the_hardware_conventions(
    receiver: Receiver, exporter: OtlpMetrics, page: list[bytes]
) -> None:
    page[0] = gpu()
    exporter.export()
    resource = receiver.metrics[0].resource_metrics[0]
    assert attributes(resource.resource)["service.name"] == "palegreen-node"
    assert resource.schema_url == "https://opentelemetry.io/schemas/1.38.0"
    assert {metric.name for metric in resource.scope_metrics[0].metrics} == {
        "hw.gpu.utilization", "hw.gpu.memory.limit", "hw.gpu.memory.usage", "hw.gpu.memory.utilization", "hw.gpu.io",
    }  # fmt: skip
    used = receiver.metric("hw.gpu.memory.usage")
    assert (used.unit, used.sum.is_monotonic, used.sum.data_points[0].as_int) == ("By", False, 30_000_000_000)
    assert attributes(used.sum.data_points[0]) == {
        "hw.id": "GPU-1", "hw.type": "gpu", "hw.name": "0", "hw.vendor": "NVIDIA", "hw.model": "NVIDIA H100",
        "hw.driver_version": "570.1",
    }  # fmt: skip
    assert receiver.metric("hw.gpu.memory.utilization").gauge.data_points[0].as_double == 0.375
    utilization = receiver.metric("hw.gpu.utilization").gauge.data_points[0]
    assert (utilization.as_double, attributes(utilization)["hw.gpu.task"]) == (0.5, "general")
    traffic = receiver.metric("hw.gpu.io")
    assert traffic.sum.is_monotonic
    directions = {attributes(p)["network.io.direction"]: p.as_int for p in traffic.sum.data_points}
    assert directions == {"receive": 100, "transmit": 7}
    assert exporter.counts() == {"ok": 6}


def test_histograms_keep_the_engines_own_buckets(receiver: Receiver, exporter: OtlpMetrics, page: list[bytes]) -> None:
    page[0] = engine()
    exporter.export()
    metric = receiver.metric("gen_ai.server.request.duration")
    point = metric.histogram.data_points[0]
    assert (metric.unit, metric.histogram.aggregation_temporality) == ("s", 2)  # cumulative
    assert (list(point.explicit_bounds), list(point.bucket_counts)) == ([0.1, 0.5], [1, 2, 2])
    assert (point.count, point.sum, point.HasField("min"), point.HasField("max")) == (5, 2.5, False, False)
    assert attributes(point) == {
        "gen_ai.operation.name": "inference", "gen_ai.provider.name": "vllm", "gen_ai.request.model": "llama",
        "k8s.namespace.name": "prod", "k8s.pod.name": "llama-0", "palegreen.endpoint": "chat",
        "palegreen.instance_id": "prod/llama-0",
    }  # fmt: skip


def test_a_series_keeps_its_start_until_it_begins_anew(
    receiver: Receiver, exporter: OtlpMetrics, page: list[bytes]
) -> None:
    starts = []
    for count in (5, 9, 4):
        page[0] = engine(count)
        exporter.export()
        starts.append(receiver.metric("gen_ai.server.request.duration").histogram.data_points[0].start_time_unix_nano)
    assert starts[0] == starts[1] < starts[2]


def test_one_switch_chooses_the_version_of_the_names(receiver: Receiver) -> None:
    both = gpu() + engine()
    made = OtlpMetrics(config(receiver, semantic_conventions="1.36"), {}, lambda: both)
    made.export()
    made.stop()
    assert receiver.metrics[0].resource_metrics[0].schema_url == "https://opentelemetry.io/schemas/1.36.0"
    assert attributes(receiver.metric("hw.gpu.utilization").gauge.data_points[0])["task"] == "general"
    point = receiver.metric("gen_ai.server.request.duration").histogram.data_points[0]
    assert attributes(point)["gen_ai.system"] == "vllm"


def test_the_node_daemon_sends_what_it_shows_and_counts_it(receiver: Receiver, tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    page = (Path(__file__).parent / "captures" / "engines" / "vllm-0.17.prom").read_bytes()
    with Server({"/metrics": response(page)}) as server:
        file.write_text(
            f"engines: [{{url: '{server.url}', endpoint: chat}}]\n"
            f"otlp: {{endpoint: '{receiver.endpoint}', protocol: {receiver.protocol}, interval: 200ms}}\n"
        )
        with Daemon("--config", str(file)) as daemon:
            until(lambda: receiver.metrics)
            shown = [s.value for s in daemon.samples() if s.name == "palegreen_engine_request_duration_seconds_count"]
            points = receiver.metric("gen_ai.server.request.duration").histogram.data_points
            assert [point.count for point in points] == shown
            assert until(lambda: daemon.value("palegreen_otlp_exported_total", signal="metrics", result="ok"))
    resource = attributes(receiver.metrics[0].resource_metrics[0].resource)
    assert (resource["service.name"], resource["host.name"]) == ("palegreen-node", socket.gethostname())


def test_the_evaluator_sends_outcomes_of_checks_and_durations_of_responses(receiver: Receiver, tmp_path: Path) -> None:
    file = write(
        tmp_path / "evaluate.yaml",
        endpoint="chat",
        otlp={"endpoint": receiver.endpoint, "protocol": receiver.protocol, "interval": "200ms"},
    )
    trace = "0af7651916cd43dd8448eb211c80319c"
    with Chat() as chat, Evaluator(chat.url, "--config", str(file)) as evaluator:
        evaluator.child("scorer")
        evaluator.ask("Why?", traceparent=f"00-{trace}-b7ad6b7169203331-01")
        until(lambda: receiver.metrics and receiver.records(), 20)
        duration = receiver.metric("gen_ai.server.request.duration").histogram.data_points
        assert [(point.count, attributes(point)["gen_ai.request.model"]) for point in duration] == [(1, "small")]
        until(lambda: evaluator.total("otlp_exported_total", signal="events", result="ok") >= 1, 20)
        body = evaluator.get(headers={"Accept": "application/openmetrics-text"})[2].decode()
        assert f'trace_id="{trace}"' in body, "histograms have exemplars"
    named = {attributes(record)["gen_ai.evaluation.name"] for record in receiver.records()}
    assert {"empty", "truncated", "error"} <= named
    assert {record.trace_id.hex() for record in receiver.records()} == {trace}


def test_outcomes_become_events_in_the_trace_of_the_response(receiver: Receiver, tmp_path: Path) -> None:
    headers = tmp_path / "headers"
    headers.write_text("X-Tenant: blue\n\nAuthorization: Bearer secret\n")
    events = EvaluationEvents(config(receiver, headers_file=headers), {"service.name": "palegreen-evaluator"})
    sample = Sample("words of a user", id="chatcmpl-1", model="llama", trace_id=TRACE, sampled="kept")
    events.emit(sample, {"empty": Outcome(True, 1.0), "refusal": Outcome(False, 0.25, "says that it cannot")})
    events.emit(Sample("more words", trace_id="no trace"), {"overlap": Outcome(None, 0.5)})
    events.close()
    first, second, third = receiver.records()
    assert {record.event_name for record in (first, second, third)} == {"gen_ai.evaluation.result"}
    assert attributes(second) == {
        "gen_ai.evaluation.name": "refusal", "gen_ai.evaluation.score.value": 0.25,
        "gen_ai.evaluation.score.label": "fail", "gen_ai.evaluation.explanation": "says that it cannot",
        "gen_ai.response.id": "chatcmpl-1", "gen_ai.response.model": "llama", "palegreen.sampled": "kept",
    }  # fmt: skip
    assert attributes(first)["gen_ai.evaluation.score.label"] == "pass"
    assert first.trace_id.hex() == second.trace_id.hex() == TRACE
    assert "gen_ai.evaluation.score.label" not in attributes(third)
    assert (third.trace_id, third.time_unix_nano > 0) == (b"", True)
    assert b"words of" not in receiver.logs[0].SerializeToString()
    assert receiver.headers[0]["x-tenant"] == "blue"
    assert receiver.headers[0]["authorization"] == "Bearer secret"
    assert events.counts() == {"ok": 3}


def test_a_receiver_that_is_not_there_costs_counted_events_and_one_line(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    where = OtlpExportConfig.model_validate({"endpoint": f"http://127.0.0.1:{port}"})
    caplog.set_level(logging.INFO)
    events = EvaluationEvents(where, {})
    for _ in range(5000):
        events.emit(Sample(""), {"empty": Outcome(True)})
    events.close()
    assert events.counts() == {"failed": 5000}
    printed = capfd.readouterr()
    lines = re.findall(r"[^\n]*otlp\.failed[^\n]*", caplog.text + printed.out + printed.err)
    assert len(lines) == 1
    assert f"127.0.0.1:{port}" in lines[0]


@pytest.mark.parametrize("text", ["no colon", ": no name"])
def test_a_file_of_headers_that_is_none_is_refused_without_quoting_it(text: str, tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text(f"a: b\n{text}\n")
    bad = OtlpExportConfig.model_validate({"endpoint": "http://127.0.0.1:1", "headers_file": file})
    with pytest.raises(ConfigError, match=r"headers_file .*headers line 2: allowed: NAME: VALUE$"):
        EvaluationEvents(bad, {})


def test_without_the_extra_the_daemon_says_in_one_line_what_to_install(tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_text("otlp: {endpoint: 'http://127.0.0.1:4317'}\n")
    program = (
        "import sys; sys.modules['opentelemetry'] = None; sys.argv[0] = 'palegreen'\n"
        "from palegreen.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "node", "--no-nvml", "--once", "--config", str(file)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert 'pip install "palegreen[otel]"' in done.stderr


def test_the_section_is_of_the_file_alone() -> None:
    assert "--otlp" not in run("node", "--help").stdout
