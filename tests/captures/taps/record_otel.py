"""Records what OpenTelemetry's instrumentations of the openai client send, by OTLP over HTTP/protobuf.

In an environment of its own:
    pip install openai opentelemetry-sdk opentelemetry-exporter-otlp-proto-http \\
        opentelemetry-instrumentation-openai openinference-instrumentation-openai \\
        opentelemetry-instrumentation-openai-v2 opentelemetry-util-genai==0.4b0
    python record_otel.py MODE          (each mode in a process of its own; without MODE, all of them)

Modes:
    openllmetry             opentelemetry-instrumentation-openai (Traceloop), content in span attributes
    openllmetry-events      the same with use_attributes=False: content in log events
    openai-v2               opentelemetry-instrumentation-openai-v2 as of semantic conventions 1.30: log events
    openai-v2-latest-span   the same, gen_ai_latest_experimental, content on the span
    openai-v2-latest-event  the same, content on the event gen_ai.client.inference.operation.details
    openinference           openinference-instrumentation-openai (Arize)
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
from importlib.metadata import version
from typing import Any

from recording import EXCHANGES, HERE, sink, upstream

PACKAGES = {
    "openllmetry": "opentelemetry-instrumentation-openai",
    "openllmetry-events": "opentelemetry-instrumentation-openai",
    "openai-v2": "opentelemetry-instrumentation-openai-v2",
    "openai-v2-latest-span": "opentelemetry-instrumentation-openai-v2",
    "openai-v2-latest-event": "opentelemetry-instrumentation-openai-v2",
    "openinference": "openinference-instrumentation-openai",
}
LATEST = {"OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental"}
CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
ENVIRONMENT = {
    "openai-v2": {CONTENT: "true"},
    "openai-v2-latest-span": LATEST | {CONTENT: "span_only"},
    "openai-v2-latest-event": LATEST | {CONTENT: "event_only"},
}


def record(mode: str) -> dict[str, list[dict[str, Any]]]:
    import openai
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    posts: list[dict[str, Any]] = []
    url = sink(posts).url
    resource = Resource.create({"service.name": "recorder"})
    traces, logs = TracerProvider(resource=resource), LoggerProvider(resource=resource)
    gzip = Compression.Gzip if mode == "openai-v2" else Compression.NoCompression
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{url}/v1/traces", compression=gzip)))
    logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint=f"{url}/v1/logs", compression=gzip)))
    if mode.startswith("openllmetry"):
        from opentelemetry.instrumentation.openai import OpenAIInstrumentor

        OpenAIInstrumentor(use_attributes=mode == "openllmetry").instrument(
            tracer_provider=traces, logger_provider=logs
        )
    elif mode.startswith("openai-v2"):
        from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor as OpenAIV2

        OpenAIV2().instrument(tracer_provider=traces, logger_provider=logs)
    else:
        from openinference.instrumentation.openai import OpenAIInstrumentor as OpenInference

        OpenInference().instrument(tracer_provider=traces)
    recorded: dict[str, list[dict[str, Any]]] = {}
    for name, exchange in EXCHANGES.items():
        client = openai.OpenAI(base_url=upstream(name).url + "/v1", api_key="none", max_retries=0)
        with contextlib.suppress(openai.APIError):
            answer = client.chat.completions.create(**exchange["request"])
            if "stream" in exchange:
                for _ in answer:
                    pass
        logs.force_flush()
        traces.force_flush()
        recorded[name] = [without_traceback(post) for post in posts]
        posts.clear()
    traces.shutdown()
    logs.shutdown()
    return recorded


def without_traceback(post: dict[str, Any]) -> dict[str, Any]:
    """The post without `exception.stacktrace`, which holds paths of the machine."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    body = base64.b64decode(post["body"])
    if b"Traceback" not in body:
        return post
    request = ExportTraceServiceRequest.FromString(body)
    for span in (s for resource in request.resource_spans for scope in resource.scope_spans for s in scope.spans):
        for attribute in (attribute for event in span.events for attribute in event.attributes):
            if attribute.key == "exception.stacktrace":
                attribute.value.string_value = "removed"
    return post | {"body": base64.b64encode(request.SerializeToString()).decode()}


def main() -> None:
    if len(sys.argv) == 1:
        for mode in PACKAGES:
            subprocess.run([sys.executable, __file__, mode], check=True, env=os.environ | ENVIRONMENT.get(mode, {}))
        return
    mode = sys.argv[1]
    sender = {name: version(name) for name in (PACKAGES[mode], "opentelemetry-sdk", "openai")}
    (HERE / "otlp").mkdir(exist_ok=True)
    text = json.dumps({"sender": sender, "exchanges": record(mode)}, indent=1)
    (HERE / "otlp" / f"{mode}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
