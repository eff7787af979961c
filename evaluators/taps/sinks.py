"""The HTTP receivers: OTLP, KServe's CloudEvents, LiteLLM's callback, feedback.

Bytes are gathered and put, never parsed (but for feedback, which is answered by what it says), and every sender is
answered at once: one that waits or retries holds what it could not send, and grows until it is killed (kserve#6167).
So a full queue is an answer of success and a count.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from typing import NamedTuple

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.envelope import Envelope, Kind
from palegreen.evaluators.wire import feedback
from palegreen.evaluators.wire.errors import WireError
from palegreen.runtime.tally import Tally
from palegreen.runtime.web import WebServer, parse_address
from palegreen.runtime.webgate import AsgiApp, Receive, Scope, Send
from palegreen.runtime.webprotocol import Limits

BATCH = 20
"""Most of one POST, in body limits: 20 MiB by default, which is what OpenTelemetry's collector takes too."""

_DRAINED = 8  # further POSTs of that size that are read and thrown away, so that the sender hears of the 413
_UNBOUNDED = 1 << 62  # for the server: the limit is kept here, where it is counted
_ENCODINGS = (b"", b"identity", b"gzip")
_JSON, _PROTOBUF, _PLAIN = b"application/json", b"application/x-protobuf", b"text/plain; charset=utf-8"
_INVALID_ARGUMENT, _RESOURCE_EXHAUSTED = 3, 8  # google.rpc.Code
_NO_METRICS = "metrics are not taken here; send traces and logs"


class _Route(NamedTuple):
    tap: str
    kind: Kind | None  # None: read and thrown away
    otlp: bool = False


_ROUTES = {
    "/v1/traces": _Route("otlp", "otlp-traces", otlp=True),
    "/v1/logs": _Route("otlp", "otlp-logs", otlp=True),
    "/v1/metrics": _Route("otlp", None, otlp=True),
    "/": _Route("kserve", "cloudevent"),
    "/cloudevents": _Route("kserve", "cloudevent"),
    "/litellm": _Route("litellm", "litellm"),
    "/feedback": _Route("feedback", "feedback"),
}


class _RefusedError(Exception):
    """A request that is answered with `status` and one line."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status


class _GoneError(Exception):
    """The client went away in the middle."""


class Sinks:
    """Serves the receivers on `config.sink_address`, with the web configuration file in front.

    Args:
        config: of the evaluator; `sink_address` is given.
        put: takes an envelope or drops and counts it; never waits.
        tally: counts `palegreen_tap_received_total` (POSTs) and `palegreen_tap_dropped_total`.

    Raises:
        palegreen.runtime.web.ListenError: the address is bad, taken or not permitted; one line.
        palegreen.runtime.yamlfile.ConfigError: the web configuration is refused.
    """

    def __init__(self, config: EvaluateConfig, put: Callable[[Envelope], object], tally: Tally) -> None:
        self._put = put
        self._tally = tally
        self._limit = config.body_limit * BATCH
        self._most_held = max(config.queue_limit, self._limit)
        self._held = 0
        limits = Limits(max_body=_UNBOUNDED)
        app: AsgiApp = self._answer
        host, port = parse_address(config.sink_address or "")
        self._server = WebServer(app, host, port, config.web_config_file, limits=limits)
        self._serving: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._server.port

    async def start(self) -> None:
        """Begin to answer."""
        self._serving = asyncio.create_task(self._server.serve(), name="sinks")

    async def stop(self) -> None:
        """Finish what is under way for a moment, and give the address back."""
        self._server.stop()
        if self._serving is None:
            self._server.close()
        else:
            await self._serving

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = _ROUTES.get(scope["path"].rstrip("/") or "/")
        headers: dict[bytes, bytes] = dict(scope["headers"])
        content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        try:
            await self._take(scope, route, headers, content_type, receive)
        except _GoneError:
            return
        except _RefusedError as refused:
            if route is not None and route.otlp:
                await _reply(send, refused.status, *_rpc_status(refused, content_type))
            else:
                await _reply(send, refused.status, f"{refused}\n".encode(), _PLAIN)
            return
        if route is not None and route.otlp:
            await _reply(send, 200, *_accepted(route, content_type))
        else:
            await _reply(send, 200, b"", _PLAIN)

    async def _take(
        self, scope: Scope, route: _Route | None, headers: dict[bytes, bytes], content_type: bytes, receive: Receive
    ) -> None:
        """Read one request and put what it holds. Raises _RefusedError and _GoneError."""
        if route is None:
            raise _RefusedError(404, f"no receiver at this path; allowed: {', '.join(_ROUTES)}")
        if scope["method"] != "POST":
            raise _RefusedError(405, "allowed: POST")
        if headers.get(b"content-encoding", b"").lower() not in _ENCODINGS:
            raise _RefusedError(415, "content-encoding; allowed: gzip, identity")
        if route.otlp and content_type not in (_JSON, _PROTOBUF):
            raise _RefusedError(415, "content-type; allowed: application/x-protobuf, application/json")
        if route.kind == "cloudevent" and not content_type.startswith(b"application/cloudevents"):
            missing = next((name for name in (b"ce-id", b"ce-type") if name not in headers), None)
            if missing:
                raise _RefusedError(400, f"not a CloudEvent: header {missing.decode()} is missing")
        if route.kind is None:
            await self._read(route, receive, 0, discard=True)
            return
        self._tally.count("palegreen_tap_received_total", route.tap)
        limit = min(self._limit, feedback.MAX_BODY) if route.kind == "feedback" else self._limit
        body = await self._read(route, receive, limit)
        if body is None:
            self._tally.count("palegreen_tap_dropped_total", route.tap, "queue_full")
            return
        if route.kind == "feedback":
            try:
                feedback.decode(Envelope({"content_encoding": _text(headers, b"content-encoding")}, [body]))
            except WireError as error:
                raise _RefusedError(400, str(error)) from None
        self._put(Envelope(_meta(route, headers), [body]))

    async def _read(self, route: _Route, receive: Receive, limit: int, *, discard: bool = False) -> bytes | None:
        """The body; None if there is no room for it. What is over the limit is read to its end and not held."""
        chunks: list[bytes] = []
        size, held, full = 0, 0, False
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _GoneError
                chunk = message.get("body", b"")
                size += len(chunk)
                full = full or self._held + len(chunk) > self._most_held
                if size > limit or full or discard:
                    self._held, held = self._held - held, 0
                    chunks.clear()
                else:
                    chunks.append(chunk)
                    self._held, held = self._held + len(chunk), held + len(chunk)
                if not message.get("more_body") or size > limit + self._limit * _DRAINED:
                    break
        finally:
            self._held -= held
        if size > limit and not discard:
            self._tally.count("palegreen_tap_dropped_total", route.tap, "too_large")
            raise _RefusedError(413, f"a body of more than {limit} bytes; allowed: at most that")
        return None if full else b"".join(chunks)


def _meta(route: _Route, headers: dict[bytes, bytes]) -> dict[str, object]:
    meta: dict[str, object] = {
        "tap": route.tap,
        "kind": route.kind,
        "time": time.time(),
        "sampled": "rate",
        "content_type": _text(headers, b"content-type"),
        "content_encoding": _text(headers, b"content-encoding"),
    }
    if route.kind == "cloudevent":
        meta["headers"] = {name.decode("latin-1"): _text(headers, name) for name in headers if name[:3] == b"ce-"}
    return meta


def _text(headers: dict[bytes, bytes], name: bytes) -> str:
    return headers.get(name, b"").decode("latin-1")


def _accepted(route: _Route, content_type: bytes) -> tuple[bytes, bytes]:
    """An Export...ServiceResponse in the sender's format; an empty message takes no bytes.

    Metrics are accepted with a warning (`partial_success` without rejected points): a refusal would be tried again.
    """
    if content_type == _JSON:
        told = {} if route.kind else {"partialSuccess": {"errorMessage": _NO_METRICS}}
        return json.dumps(told).encode(), _JSON
    return (b"" if route.kind else _field(1, _field(2, _NO_METRICS.encode()))), _PROTOBUF


def _rpc_status(refused: _RefusedError, content_type: bytes) -> tuple[bytes, bytes]:
    """google.rpc.Status in the sender's format."""
    code, line = _RESOURCE_EXHAUSTED if refused.status == 413 else _INVALID_ARGUMENT, str(refused)
    if content_type == _JSON:
        return json.dumps({"code": code, "message": line}).encode(), _JSON
    return bytes((1 << 3, code)) + _field(2, line.encode()), _PROTOBUF


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of protobuf, up to 127 bytes: so the tap needs no generated code."""
    content = content[:127]
    return bytes((number << 3 | 2, len(content))) + content


async def _reply(send: Send, status: int, body: bytes, content_type: bytes) -> None:
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    if status == 405:
        headers.append((b"allow", b"POST"))
    if status >= 400:  # the body may not have been read
        headers.append((b"connection", b"close"))
    with contextlib.suppress(OSError):
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
