"""KServe's inference logger: request and response events of one call, joined by their id.

Source: kserve, `pkg/logger/worker.go`: CloudEvents 1.0 in binary mode, headers `ce-id`, `ce-type` and so on, the body
as it was. Structured mode and batches are read too, for brokers that turn one into the other.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import unquote

import orjson

from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.sample import Observation, Sample
from palegreen.evaluators.wire import jsontext
from palegreen.evaluators.wire.body import decoded
from palegreen.evaluators.wire.errors import WireError
from palegreen.evaluators.wire.shape import mapping, objects, text

MAX_BODY = 64 << 20
REQUEST = "org.kubeflow.serving.inference.request"
RESPONSE = "org.kubeflow.serving.inference.response"

_LABELS = {"namespace": "namespace", "component": "component", "endpoint": "kserve_endpoint"}
# The events do not say which path was called. Within a JSON text a quote is escaped, so that these are keys or values.
_BY_REQUEST = (
    (b'"messages"', "/v1/chat/completions"), (b'"prompt"', "/v1/completions"), (b'"input"', "/v1/responses")
)  # fmt: skip
_BY_RESPONSE = (
    (b'"chat.completion', "/v1/chat/completions"), (b'"text_completion"', "/v1/completions"),
    (b'"response', "/v1/responses"),
)  # fmt: skip


class _Event(NamedTuple):
    id: str
    type: str
    attributes: dict[str, str]
    body: bytes
    recorded: float  # epoch seconds at which the agent saw it, 0 where its version does not say
    time: float
    meta: dict[str, Any]


@dataclass(slots=True)
class _Call:
    """What has come of one call. `since` is when the first of it came."""

    since: float
    events: dict[str, _Event] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(len(event.body) + 1024 for event in self.events.values())


class CloudEvents:
    """Decodes events; holds what waits for its other half. Not thread-safe: one decoder, one thread.

    A response whose request does not come in `response_wait` seconds is scored alone; a request without a response
    (KServe logs only status 200) is dropped after `request_wait`, and counted in `unanswered`. A response that waited
    and then cannot be decoded is counted in `undecodable`.

    Args:
        decode_http: decoder of envelopes of kind http.
        session_header: header of the request that names the session, where KServe is told to log it.
        keep_header: header of a request that is to be scored whatever the rate, likewise.
        most: calls that wait at once.
        most_bytes: memory of what waits, about.
        clock: seconds, any beginning.
    """

    def __init__(
        self,
        decode_http: Callable[[Envelope], list[Observation]],
        *,
        session_header: str = "x-session-id",
        keep_header: str = "x-palegreen-keep",
        request_wait: float = 600.0,
        response_wait: float = 10.0,
        most: int = 10_000,
        most_bytes: int = 32 << 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.unanswered = 0
        self.undecodable = 0
        self._decode_http = decode_http
        self._session_header = session_header.lower()
        self._keep_header = keep_header.lower()
        self._most = most
        self._most_bytes = most_bytes
        self._clock = clock
        self._waiting = {
            REQUEST: (request_wait, OrderedDict[str, _Call]()), RESPONSE: (response_wait, OrderedDict[str, _Call]())
        }  # fmt: skip
        self._bytes = 0

    def decode(self, envelope: Envelope) -> list[Observation]:
        """Samples of the calls that are whole with this event (and of responses that have waited long enough).

        Raises:
            WireError: not an event of an inference, or a call that cannot be decoded.
        """
        found: list[Observation] = []
        refused: WireError | None = None
        for event in _events(envelope):
            try:
                found += self._of_event(event)
            except WireError as error:
                refused = error
        if refused and not found:
            raise refused
        return found + self.due()

    def due(self) -> list[Observation]:
        """What has waited long enough, or must go because too much waits; to be called now and then."""
        found: list[Observation] = []
        for wait, calls in self._waiting.values():
            before = self._clock() - wait
            while calls and (
                next(iter(calls.values())).since <= before or len(calls) > self._most or self._bytes > self._most_bytes
            ):
                call = calls.popitem(last=False)[1]
                self._bytes -= call.size
                if RESPONSE not in call.events:
                    self.unanswered += 1
                    continue
                try:
                    found += self._of_call(call)
                except WireError:
                    self.undecodable += 1
        return found

    def _of_event(self, event: _Event) -> list[Observation]:
        _, others = self._waiting[RESPONSE if event.type == REQUEST else REQUEST]
        call = others.pop(event.id, None)
        if call is not None:
            self._bytes -= call.size
            call.events[event.type] = event
            return self._of_call(call)
        _, same = self._waiting[event.type]
        call = same.pop(event.id, None)  # sent again: the later one counts
        self._bytes -= call.size if call else 0
        same[event.id] = call = _Call(self._clock(), {event.type: event})
        self._bytes += call.size
        return []

    def _of_call(self, call: _Call) -> list[Observation]:
        request, response = call.events.get(REQUEST), call.events[RESPONSE]
        asked, answered = request.body if request else b"{}", response.body
        if answered[:2] == b"\x1f\x8b":  # the event does not say that the engine compressed it
            answered = decoded(answered, "gzip", "CloudEvent")
        path = _path(asked, _BY_REQUEST) or _path(answered, _BY_RESPONSE)
        if path is None:
            raise WireError("CloudEvents of a call that is no chat, completion or response")
        headers = self._headers(request or response)
        streamed = answered.lstrip()[:5] in (b"data:", b"event", b": pin")
        http = {
            "tap": response.meta.get("tap", "kserve"),
            "kind": "http",
            "time": (request or response).time,
            "sampled": "kept" if self._keep_header in headers else response.meta.get("sampled", "rate"),
            "method": "POST",
            "path": path,
            "status": 200,
            "session": headers.get(self._session_header, ""),
            "request_headers": {"content-type": "application/json"} | headers,
            # The event has the request's content type, whatever the response's was.
            "response_headers": {"content-type": "text/event-stream" if streamed else "application/json"},
            "ended": "complete",
        }
        if request and response.recorded > request.recorded > 0:
            http["duration"] = response.recorded - request.recorded
        observations = self._decode_http(Envelope(http, [asked, answered]))
        for sample in observations:
            if isinstance(sample, Sample):
                _label(sample, response.attributes)
        return observations

    def _headers(self, event: _Event) -> dict[str, str]:
        """Headers of the request that KServe was told to log (`ce-metadata`, JSON)."""
        try:
            given = orjson.loads(event.attributes.get("metadata") or "{}")
        except orjson.JSONDecodeError:
            return {}
        first = {
            name: value[0] if isinstance(value, list) and value else value for name, value in mapping(given).items()
        }
        return {name.lower(): value for name, value in first.items() if isinstance(value, str)}


def _label(sample: Sample, attributes: dict[str, str]) -> None:
    sample.endpoint = sample.endpoint or attributes.get("inferenceservicename", "")
    sample.labels |= {label: value for name, label in _LABELS.items() if (value := attributes.get(name))}


def _path(body: bytes, marks: tuple[tuple[bytes, str], ...]) -> str | None:
    return next((path for mark, path in marks if mark in body), None)


def _events(envelope: Envelope) -> list[_Event]:
    meta, body = envelope.meta, b"".join(envelope.parts)
    kind = str(meta.get("content_type", "")).partition(";")[0].strip().lower()
    encoding = str(meta.get("content_encoding", ""))
    body = decoded(body, encoding, "CloudEvent", limit=MAX_BODY)
    if kind not in ("application/cloudevents+json", "application/cloudevents-batch+json"):
        headers = {name: value for name, value in mapping(meta.get("headers")).items() if isinstance(value, str)}
        # Values are percent-encoded (CloudEvents' HTTP binding, 3.1.3.2).
        return [_event({name.removeprefix("ce-"): unquote(value) for name, value in headers.items()}, body, meta)]
    whole = jsontext.loads(body, "CloudEvent")
    return [
        _event({name: value for name, value in one.items() if isinstance(value, str)}, _data(one), meta)
        for one in (objects(whole) or [mapping(whole)])
    ]


def _event(attributes: dict[str, str], body: bytes, meta: dict[str, Any]) -> _Event:
    kind, name = attributes.get("type", ""), attributes.get("id", "")
    if kind not in (REQUEST, RESPONSE) or not name:
        raise WireError(f"CloudEvent of type {kind[:80]!r}; allowed: {REQUEST} and {RESPONSE}, with an id")
    recorded = _time(attributes.get("recordedtime", ""))
    known = recorded or _time(attributes.get("time", "")) or float(meta.get("time", 0.0))
    return _Event(name, kind, attributes, body, recorded, known, meta)


def _data(event: dict[str, Any]) -> bytes:
    if isinstance(packed := event.get("data_base64"), str):
        try:
            return base64.b64decode(packed, validate=True)
        except (binascii.Error, ValueError):
            raise WireError("CloudEvent: data_base64 is not base64") from None
    data = event.get("data")
    if isinstance(data, str):
        return text(data).encode("utf-8", "replace")
    try:
        return orjson.dumps(data)
    except orjson.JSONEncodeError:
        raise WireError("CloudEvent: data that is nested too deeply") from None


def _time(value: str) -> float:
    """Epoch seconds of an RFC 3339 time, 0 if it is none."""
    try:
        read = datetime.fromisoformat(value)
        return read.timestamp() if read.tzinfo else 0.0
    except (ValueError, OverflowError):
        return 0.0
