"""The ASGI tap: what a server answers, seen in passing and handed to the evaluator on this machine.

`Tap` is pure ASGI middleware, for `vllm serve --middleware palegreen.inprocess.asgi.Tap` and any other ASGI server.
It looks at messages as they pass, and changes, delays and reorders none. Whatever goes wrong in it, serving goes on.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from random import SystemRandom
from typing import Any, NamedTuple
from urllib.parse import quote

from palegreen.inprocess.sender import DROPPED, Sender

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_ARRIVALS = 4  # first chunks whose arrival is told; the last one's is too
_CAUSES = 20  # logged at most
_HELD = 64 << 20  # bytes of all exchanges in progress
_REFUSED = (401, 403)  # whoever is refused leaves no record
_REQUEST_HEADERS = (b"content-type", b"content-encoding", b"traceparent", b"x-request-id")
_CANARY = b"x-palegreen-canary"  # marks the evaluator's own questions
_RESPONSE_HEADERS = (b"content-type", b"content-encoding", b"x-request-id")

_chance = SystemRandom().random  # forked processes share no state of it, and the application's own is left alone
_log = logging.getLogger("palegreen.asgi")
_said: set[str] = set()


class Settings(NamedTuple):
    """What the tap is told: as arguments of `Tap`, else as variables PALEGREEN_TAP_SOCKET and so on.

    `socket` is the evaluator's `tap_socket`; without it the tap does nothing. `sample_rate` is in [0, 1]; `body_limit`
    is bytes of a request's or a response's body that are held. The headers name the session and what is kept whatever
    the rate. `keep_errors` is whether answers of status 400 and more are kept, without the request's body.
    """

    socket: str = ""
    sample_rate: float = 1.0
    body_limit: int = 1 << 20
    session_header: str = "x-session-id"
    keep_header: str = "x-palegreen-keep"
    keep_errors: bool = True


class Tap:
    """The middleware. A setting that cannot be used is logged in one line, and the tap then does nothing."""

    def __init__(self, app: App, **given: Any) -> None:
        self._app = app
        self._sender: Sender | None = None
        self._held = 0
        try:
            settings = _settings(given)
        except (TypeError, ValueError) as failure:
            _say(f"the ASGI tap is off: {failure}")
            return
        if not settings.socket:
            _say("the ASGI tap is off: PALEGREEN_TAP_SOCKET is not set")
            return
        self._settings = settings
        self._keep, self._session = settings.keep_header.lower(), settings.session_header.lower()
        self._wanted = frozenset((*_REQUEST_HEADERS, _CANARY, self._keep.encode(), self._session.encode()))
        self._sender = Sender(settings.socket)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one scope; only POST requests are looked at."""
        exchange = None
        if scope["type"] == "http" and self._sender is not None:
            exchange = self._begun(scope, receive, send)
        if exchange is None:
            await self._app(scope, receive, send)
            if scope["type"] == "lifespan":
                self._shut_down()
            return
        try:
            await self._app(scope, exchange.receive if exchange.holds_request else receive, exchange.send)
        finally:
            exchange.end()

    def _begun(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> _Exchange | None:
        """Whether and how this request is looked at, decided by its head."""
        assert self._sender is not None  # noqa: S101
        try:
            if scope["method"] != "POST":
                return None
            self._sender.count("received")
            headers = _selected(scope["headers"], self._wanted)
            if _CANARY.decode() in headers:
                self._sender.count("canary")
                return None
            kept = self._keep in headers
            rate = kept or self._settings.sample_rate >= 1 or _chance() < self._settings.sample_rate
            if not rate and not self._settings.keep_errors:
                self._sender.count("rate")
                return None
            meta: dict[str, Any] = {
                "tap": "asgi", "kind": "http", "time": time.time(), "sampled": "kept" if kept else "rate",
                "method": "POST", "path": _path(scope), "request_headers": headers,
            }  # fmt: skip
            if session := headers.get(self._session):
                meta["session"] = session
            return _Exchange(self, meta, receive, send, rate)
        except Exception as failure:  # noqa: BLE001 - serving goes on whatever happens here
            self.failed(failure)
            return None

    def _shut_down(self) -> None:
        try:
            if self._sender is not None:
                self._sender.tell()
        except Exception as failure:  # noqa: BLE001 - serving goes on whatever happens here
            self.failed(failure)

    @property
    def settings(self) -> Settings:
        """What it was told."""
        return self._settings

    def hold(self, size: int) -> bool:
        """Ask for memory for a part of a body; False when all exchanges together hold too much."""
        self._held += size
        return self._held <= _HELD

    def release(self, size: int) -> None:
        """Give memory back."""
        self._held -= size

    def count(self, what: str) -> None:
        """Add one to a count."""
        if self._sender is not None:
            self._sender.count(what)

    def hand_over(self, meta: dict[str, Any], parts: list[list[bytes]]) -> None:
        """Offer a record to the evaluator: the request's body and the response's, in pieces."""
        if self._sender is not None:
            self._sender.offer(meta, parts)

    def failed(self, failure: Exception) -> None:
        """A defect of the tap: logged once, and its record counts as dropped."""
        _say(f"the ASGI tap lost a record: {failure!r}")
        with suppress(Exception):  # what failed may be the counting
            self.count(DROPPED)


class _Body:
    """The first bytes of a body, up to a limit."""

    __slots__ = ("chunks", "size", "truncated")

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.size = 0
        self.truncated = False

    def add(self, data: bytes, limit: int) -> int:
        """Hold what fits of `data`; how many bytes that was."""
        room = limit - self.size
        if len(data) > room:
            self.truncated = True
            data = data[:room]
        if data:
            self.chunks.append(bytes(data))
            self.size += len(data)
        return len(data)


class _Exchange:
    """One request and its response as they pass."""

    __slots__ = (
        "_aborted", "_arrivals", "_began", "_last", "_meta", "_over", "_receive", "_request", "_response", "_send",
        "_tap", "_total", "holds_request",
    )  # fmt: skip

    def __init__(self, tap: Tap, meta: dict[str, Any], receive: Receive, send: Send, sampled: bool) -> None:
        self._tap, self._meta, self._receive, self._send = tap, meta, receive, send
        self.holds_request = sampled
        self._began = time.perf_counter()
        self._request, self._response = _Body(), _Body()
        self._arrivals: list[list[float]] = []
        self._last = 0.0
        self._total = 0  # bytes of the response's body
        self._aborted = False
        self._over = False  # the record is handed over or given up

    async def receive(self) -> Message:
        """The server's `receive`, looked at."""
        message = await self._receive()
        if not self._over:
            try:
                self._received(message)
            except Exception as failure:  # noqa: BLE001 - serving goes on whatever happens here
                self._give_up(failure)
        return message

    async def send(self, message: Message) -> None:
        """The server's `send`, looked at; what `message` says is taken before others may change it."""
        ends = False
        if not self._over:
            try:
                ends = self._sent(message)
            except Exception as failure:  # noqa: BLE001 - serving goes on whatever happens here
                self._give_up(failure)
        try:
            await self._send(message)
        except OSError:  # how some servers say that the client is gone
            self._aborted = True
            raise
        if ends:
            self.end("complete")

    def end(self, how: str = "") -> None:
        """Hand the record over if that has not been done; `how` is empty where the application ended first."""
        if self._over:
            return
        try:
            self._ended(how)
        except Exception as failure:  # noqa: BLE001 - serving goes on whatever happens here
            self._give_up(failure)

    def _received(self, message: Message) -> None:
        if message["type"] == "http.request":
            if self.holds_request and not self._aborted:
                self._hold(self._request, message.get("body", b""))
        elif message["type"] == "http.disconnect" and not self._aborted:
            self._aborted = True
            self._last = time.perf_counter() - self._began

    def _sent(self, message: Message) -> bool:
        """Whether the response ends with this message."""
        kind = message["type"]
        if kind == "http.response.body":
            if not self._aborted:
                self._last = time.perf_counter() - self._began
                if body := message.get("body", b""):
                    self._total += len(body)
                    if len(self._arrivals) < _ARRIVALS:
                        self._arrivals.append([self._total, self._last])
                    self._hold(self._response, body)
            return not message.get("more_body", False)
        if kind == "http.response.start":
            self._started(message["status"], message.get("headers", ()))
        elif kind in ("http.response.pathsend", "http.response.zerocopysend"):
            self._forget()  # a file, whose bytes do not pass here
        return False

    def _started(self, status: int, headers: Iterable[Iterable[bytes]]) -> None:
        if status >= 400 and status not in _REFUSED and self._tap.settings.keep_errors:
            self._keep_error()
        elif not self.holds_request or not 200 <= status < 300:
            self._pass_over()
            return
        self._meta["status"] = status
        self._meta["response_headers"] = _selected(headers, _RESPONSE_HEADERS)

    def _ended(self, how: str) -> None:
        meta = self._meta
        if "status" not in meta and not self._aborted:  # an exception, most often
            if not self._tap.settings.keep_errors:
                self._pass_over()
                return
            self._keep_error()
            how = "error"
        meta["ended"] = "client_abort" if self._aborted else how or "interrupted"
        meta["duration"] = self._last if self._aborted else time.perf_counter() - self._began
        if self._arrivals and self._arrivals[-1][0] != self._total:
            self._arrivals.append([self._total, self._last])
        meta["arrivals"] = self._arrivals
        if self._request.truncated:
            meta["request_truncated"] = True
        if self._response.truncated:
            meta["response_truncated"] = True
        parts = [self._request.chunks, self._response.chunks]
        self._forget()
        self._tap.hand_over(meta, parts)

    def _keep_error(self) -> None:
        """What was sent is not kept: whoever sent it may not have been let in."""
        self._tap.release(self._request.size)
        self._request = _Body()
        self.holds_request = False
        self._meta["sampled"] = "kept"

    def _pass_over(self) -> None:
        self._tap.count("status" if self.holds_request else "rate")
        self._forget()

    def _hold(self, body: _Body, data: bytes) -> None:
        added = body.add(data, self._tap.settings.body_limit)
        if added and not self._tap.hold(added):
            self._tap.count(DROPPED)
            self._forget()

    def _give_up(self, failure: Exception) -> None:
        self._forget()
        self._tap.failed(failure)

    def _forget(self) -> None:
        self._over = True
        self._tap.release(self._request.size + self._response.size)
        self._request = self._response = _Body()


def _settings(given: dict[str, Any]) -> Settings:
    """Arguments over variables over defaults. Raises TypeError and ValueError, one line."""
    unknown = given.keys() - set(Settings._fields)
    if unknown:
        raise TypeError(f"unknown argument {', '.join(sorted(unknown))}; allowed: {', '.join(Settings._fields)}")
    values: dict[str, Any] = {}
    for name, default in Settings._field_defaults.items():
        variable = f"PALEGREEN_TAP_{name.upper()}"
        text = str(given[name]) if name in given else os.environ.get(variable, "")
        if text:
            values[name] = _value(name if name in given else variable, text, default)
    return Settings(**values)


def _value(name: str, text: str, default: Any) -> Any:
    """`text` in the type of `default`."""
    if isinstance(default, bool):
        if text.lower() not in ("true", "false", "1", "0"):
            raise ValueError(f"{name}: got {text!r}; allowed: true, false")
        return text.lower() in ("true", "1")
    if isinstance(default, str):
        if not text.isascii():
            raise ValueError(f"{name}: got {text!r}; allowed: ASCII")
        return text
    highest, what = (1.0, "a number from 0 to 1") if isinstance(default, float) else (1 << 26, "bytes, 0 to 67108864")
    try:
        value = type(default)(text)
    except ValueError:
        value = -1
    if not 0 <= value <= highest:
        raise ValueError(f"{name}: got {text!r}; allowed: {what}")
    return value


def _selected(headers: Iterable[Iterable[bytes]], wanted: Iterable[bytes]) -> dict[str, str]:
    """Those of the headers that are wanted."""
    return {
        key.decode("latin-1"): value.decode("latin-1") for name, value in headers if (key := name.lower()) in wanted
    }


def _path(scope: MutableMapping[str, Any]) -> str:
    """The path as it was asked for, with the query."""
    raw = scope.get("raw_path") or quote(scope["path"]).encode()
    query = scope.get("query_string", b"")
    return (raw + b"?" + query if query else raw).decode("latin-1")


def _say(text: str) -> None:
    """Log a cause once, of few; never what passed through."""
    if text not in _said and len(_said) < _CAUSES:
        _said.add(text)
        _log.warning("%s", text)
