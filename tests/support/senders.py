"""What real senders sent of the exchanges in tests/captures/taps, and those exchanges as the proxy sees them."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.sample import Sample
from palegreen.evaluators.wire import http
from palegreen.evaluators.wire.defaults import Defaults

CAPTURES = Path(__file__).parent.parent / "captures" / "taps"
OTLP_SENDERS = tuple(sorted(path.stem for path in (CAPTURES / "otlp").glob("*.json")))
LITELLM_FORMATS = tuple(sorted(path.stem for path in (CAPTURES / "litellm").glob("*.json")))
_REQUESTS = {"/v1/traces": ExportTraceServiceRequest, "/v1/logs": ExportLogsServiceRequest}

decode_http = partial(http.decode, defaults=Defaults())


class Post(NamedTuple):
    """One POST, or one gRPC call."""

    path: str
    body: bytes
    headers: dict[str, str]


@cache
def exchanges() -> dict[str, dict[str, Any]]:
    """Requests and responses by name."""
    found: dict[str, dict[str, Any]] = json.loads((CAPTURES / "exchanges.json").read_text(encoding="utf-8"))
    return found


def bodies(exchange: dict[str, Any]) -> tuple[bytes, bytes]:
    """Request and response as they were on the wire."""
    request = json.dumps(exchange["request"]).encode()
    if "stream" in exchange:
        lines = [json.dumps(chunk) for chunk in exchange["stream"]] + ["[DONE]"]
        return request, "".join(f"data: {line}\n\n" for line in lines).encode()
    return request, json.dumps(exchange["response"]).encode()


def proxied(name: str) -> list[Sample]:
    """The samples of an exchange that went through the proxy."""
    exchange = exchanges()[name]
    kind = "text/event-stream" if "stream" in exchange else "application/json"
    meta = {
        "tap": "proxy", "kind": "http", "time": 1.0, "method": "POST", "path": "/v1/chat/completions",
        "status": exchange["status"], "request_headers": {"content-type": "application/json"},
        "response_headers": {"content-type": kind}, "ended": "complete",
    }  # fmt: skip
    return [sample for sample in decode_http(Envelope(meta, list(bodies(exchange)))) if isinstance(sample, Sample)]


def otlp(sender: str, name: str) -> list[Post]:
    """What an instrumentation exported of an exchange, in protobuf, not compressed."""
    recorded = json.loads((CAPTURES / "otlp" / f"{sender}.json").read_text(encoding="utf-8"))["exchanges"][name]
    posts = []
    for post in recorded:
        body = base64.b64decode(post["body"])
        if post["headers"].get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        posts.append(Post(post["path"], body, {"content-type": "application/x-protobuf"}))
    return posts


def as_json(post: Post) -> Post:
    """An export request as OpenTelemetry's JavaScript SDK and the collector write it: ids in hex."""
    whole = MessageToDict(_REQUESTS[post.path].FromString(post.body))
    _hex_ids(whole)
    return Post(post.path, json.dumps(whole).encode(), {"content-type": "application/json"})


def _hex_ids(node: Any) -> None:
    if isinstance(node, dict):
        for key in ("traceId", "spanId", "parentSpanId"):
            if key in node:
                node[key] = base64.b64decode(node[key]).hex()
        for value in node.values():
            _hex_ids(value)
    elif isinstance(node, list):
        for value in node:
            _hex_ids(value)


def litellm(log_format: str) -> list[Post]:
    """What LiteLLM's callback posted of all exchanges, in one of its formats."""
    posts = json.loads((CAPTURES / "litellm" / f"{log_format}.json").read_text(encoding="utf-8"))["posts"]
    return [Post(post["path"], post["body"].encode(), post["headers"]) for post in posts]


def kserve(name: str) -> Iterator[Post]:
    """Both events of an exchange as KServe's agent posts them: written after its source, since it is no Python."""
    for kind, body in zip(("request", "response"), bodies(exchanges()[name]), strict=True):
        headers = {
            "ce-specversion": "1.0",
            "ce-id": f"call-{name}",
            "ce-type": f"org.kubeflow.serving.inference.{kind}",
            "ce-source": "http://localhost:9081/",
            "ce-time": "2026-11-21T10:00:03Z",
            "ce-recordedtime": f"2026-11-21T10:00:0{1 if kind == 'request' else 2}Z",
            "ce-inferenceservicename": "assistant",
            "ce-namespace": "prod",
            "ce-component": "predictor",
            "ce-endpoint": "default",
            "ce-metadata": "{%22X-Session-Id%22:[%22s-1%22]}",
            "content-type": "application/json",  # the request's, also of a response that is a stream
        }
        yield Post("/", body, headers)
