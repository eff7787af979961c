"""OTLP as plain values: the GenAI spans and log events of an export request, protobuf or JSON.

Sources: opentelemetry-proto; its JSON mapping (ids as hex, 64-bit integers as strings, camelCase) is in
https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding and is not that of google.protobuf.json_format.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan

from palegreen.evaluators.wire import jsontext
from palegreen.evaluators.wire.errors import WireError
from palegreen.evaluators.wire.shape import mapping, objects, text

_PREFIXES = ("gen_ai.", "llm.", "openinference.", "traceloop.")
_DEEPEST = 32
_FAILED = 2  # STATUS_CODE_ERROR


@dataclass(slots=True)
class Event:
    """An event of a span, or a log record. `time` is epoch seconds; ids are hex, empty if there are none."""

    name: str
    time: float
    attributes: dict[str, Any]
    body: Any = None
    trace_id: str = ""
    span_id: str = ""


@dataclass(slots=True)
class Span:
    """A span. `start` and `end` are epoch seconds; `failed` is its status, `message` what the status says."""

    name: str
    trace_id: str = ""
    span_id: str = ""
    start: float = 0.0
    end: float = 0.0
    attributes: dict[str, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    failed: bool = False
    message: str = ""


def spans(body: bytes, content_type: str) -> list[Span]:
    """GenAI spans of an ExportTraceServiceRequest; others are left out. Raises WireError."""
    if _is_json(content_type):
        found = _records(body, "resourceSpans", "scopeSpans", "spans")
        return [_span_of_json(span) for span in found if _relevant(text(item.get("key")) for item in _attributes(span))]
    request = _parsed(ExportTraceServiceRequest(), body)
    return [
        _span_of_proto(span)
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
        if _relevant(item.key for item in span.attributes)
    ]


def events(body: bytes, content_type: str) -> list[Event]:
    """GenAI events of an ExportLogsServiceRequest; other log records are left out. Raises WireError."""
    if _is_json(content_type):
        found = map(_event_of_json, _records(body, "resourceLogs", "scopeLogs", "logRecords"))
    else:
        request = _parsed(ExportLogsServiceRequest(), body)
        found = (
            _event_of_proto(record)
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        )  # type: ignore[assignment]  # a generator instead of a map
    return [event for event in found if event.name.startswith("gen_ai.")]


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "application/json"


def _relevant(keys: Iterable[str]) -> bool:
    return any(key.startswith(_PREFIXES) for key in keys)


# Protobuf


def _parsed(request: Any, body: bytes) -> Any:
    message: Message = request
    try:
        message.ParseFromString(body)
    except DecodeError:
        raise WireError(f"OTLP body: not a protobuf {type(request).__name__}") from None
    return message


def _span_of_proto(span: ProtoSpan) -> Span:
    return Span(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        start=span.start_time_unix_nano / 1e9,
        end=span.end_time_unix_nano / 1e9,
        attributes=_values(span.attributes),
        events=[Event(event.name, event.time_unix_nano / 1e9, _values(event.attributes)) for event in span.events],
        failed=span.status.code == _FAILED,
        message=span.status.message,
    )


def _event_of_proto(record: LogRecord) -> Event:
    attributes = _values(record.attributes)
    return Event(
        name=record.event_name or text(attributes.get("event.name")),
        time=(record.time_unix_nano or record.observed_time_unix_nano) / 1e9,
        attributes=attributes,
        body=_value(record.body),
        trace_id=record.trace_id.hex(),
        span_id=record.span_id.hex(),
    )


def _values(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _values(value.kvlist_value.values)
    return None if kind in (None, "bytes_value") else getattr(value, kind)


# JSON


def _records(body: bytes, *path: str) -> list[dict[str, Any]]:
    whole = jsontext.loads(body, "OTLP body")
    if not isinstance(whole, dict):
        raise WireError(f"OTLP body: a JSON {type(whole).__name__}; allowed: an object with {path[0]}")
    level = [whole]
    for name in path:
        level = [item for holder in level for item in objects(holder.get(name))]
    return level


def _span_of_json(span: dict[str, Any]) -> Span:
    status = mapping(span.get("status"))
    return Span(
        name=text(span.get("name")),
        trace_id=_id(span.get("traceId")),
        span_id=_id(span.get("spanId")),
        start=_seconds(span.get("startTimeUnixNano")),
        end=_seconds(span.get("endTimeUnixNano")),
        attributes=_json_values(_attributes(span)),
        events=[
            Event(text(event.get("name")), _seconds(event.get("timeUnixNano")), _json_values(_attributes(event)))
            for event in objects(span.get("events"))
        ],
        failed=status.get("code") in (_FAILED, "STATUS_CODE_ERROR"),
        message=text(status.get("message")),
    )


def _event_of_json(record: dict[str, Any]) -> Event:
    attributes = _json_values(_attributes(record))
    return Event(
        name=text(record.get("eventName")) or text(attributes.get("event.name")),
        time=_seconds(record.get("timeUnixNano")) or _seconds(record.get("observedTimeUnixNano")),
        attributes=attributes,
        body=_json_value(record.get("body")),
        trace_id=_id(record.get("traceId")),
        span_id=_id(record.get("spanId")),
    )


def _attributes(holder: dict[str, Any]) -> list[dict[str, Any]]:
    return objects(holder.get("attributes"))


def _json_values(pairs: list[dict[str, Any]], depth: int = 0) -> dict[str, Any]:
    return {text(pair.get("key")): _json_value(pair.get("value"), depth + 1) for pair in pairs}


def _json_value(value: object, depth: int = 0) -> Any:
    given = mapping(value)
    if depth > _DEEPEST or not given:
        return None
    kind, held = next(iter(given.items()))
    match kind:
        case "stringValue":
            return text(held)
        case "boolValue":
            return held is True
        case "intValue":
            return _integer(held)
        case "doubleValue":
            return held if isinstance(held, (int, float)) else None
        case "arrayValue":
            return [_json_value(item, depth + 1) for item in objects(mapping(held).get("values"))]
        case "kvlistValue":
            return _json_values(objects(mapping(held).get("values")), depth)
    return None


def _integer(value: object) -> int | None:
    """A 64-bit integer, which JSON senders write as a string or as a number."""
    if isinstance(value, str) and len(value) <= 20 and value.removeprefix("-").isascii():
        return int(value) if value.removeprefix("-").isdigit() else None
    return value if isinstance(value, int) else None


def _seconds(nanoseconds: object) -> float:
    return min(max(_integer(nanoseconds) or 0, 0), 1 << 64) / 1e9


def _id(value: object) -> str:
    return text(value).lower()[:32]
