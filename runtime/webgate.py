"""What stands before the app: rate limit, security headers, basic authentication.

Source: Prometheus' exporter-toolkit, ``web/handler.go``, whose order this keeps. No path is exempt.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bcrypt

from palegreen.runtime.webconfig import WebConfig

_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_CLOSE = (b"connection", b"close")
_REMEMBERED = 128
_WAITING = 32


class Gate:
    """ASGI middleware that applies the web configuration ``current()`` to each request."""

    def __init__(
        self,
        app: AsgiApp,
        current: Callable[[], WebConfig],
        max_body: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._current = current
        self._max_body = max_body
        self._passwords = Passwords()
        self._bucket = _Bucket(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or let the app do so; nothing is raised."""
        try:
            await self._pass(scope, receive, send)
        except asyncio.CancelledError:
            return  # the server stops; its task ends here either way
        except Exception as error:  # noqa: BLE001  # uvicorn would log a traceback of many lines
            _log.error("request failed: %s %s: %r at %s", scope["method"], scope["path"], error, _place(error))
            with contextlib.suppress(Exception):  # the answer had begun; the server closes the connection
                await _answer(send, 500, "Internal Server Error", (_CLOSE,))

    def close(self) -> None:
        """End the password thread."""
        self._passwords.close()

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        config = self._current()
        if config.headers:
            send = _with_headers(send, config.headers)
        if config.rate_interval and not self._bucket.take(config.rate_interval, config.rate_burst):
            return await _answer(send, 429, "Too Many Requests")
        headers = scope["headers"]
        if scope["method"] == "CONNECT":  # a 2xx to it would turn the connection into a tunnel
            return await _answer(send, 405, "Method Not Allowed", ((b"allow", b"GET, HEAD"), _CLOSE))
        if _declared_length(headers) > self._max_body:
            return await _answer(send, 413, "Content Too Large", (_CLOSE,))
        if config.users:
            given = [value for name, value in headers if name == b"authorization"]
            user, password = _credentials(given)
            try:
                known = user is not None and await self._passwords.check(config.users, user, password)
            except OverloadedError:
                return await _answer(send, 503, "Service Unavailable", ((b"retry-after", b"1"),))
            if not known:
                return await _answer(send, 401, "Unauthorized", ((b"www-authenticate", b"Basic"),))
        return await self._app(scope, receive, send)


class OverloadedError(Exception):
    """More passwords wait to be checked than is reasonable."""


class Passwords:
    """Checks passwords against bcrypt hashes, one at a time in a thread, and remembers those that were right.

    What is remembered is a keyed digest of user, hash and password, so a changed hash is a new question and
    no password is held. Wrong ones are not remembered: a stranger cannot push out those in use.
    """

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bcrypt")
        self._waiting = 0

    async def check(self, users: Mapping[str, bytes], user: str, password: bytes) -> bool:
        """Whether ``password`` is the user's; an unknown user takes as long as a known one.

        Raises:
            OverloadedError: too many checks wait already.
        """
        hashed = users.get(user)
        # The dearest hash of the file stands in for an unknown user's.
        compared = hashed or max(users.values(), key=lambda value: value.split(b"$")[2])
        question = hashlib.blake2b(key=self._key)
        for part in (user.encode(), compared, password):
            question.update(len(part).to_bytes(8, "big") + part)
        digest = question.digest()
        if hashed is not None and digest in self._right:
            self._right.move_to_end(digest)
            return True
        if self._waiting >= _WAITING:
            raise OverloadedError
        self._waiting += 1
        try:
            matches = await asyncio.get_running_loop().run_in_executor(self._thread, _matches, password, compared)
        finally:
            self._waiting -= 1
        if not matches or hashed is None:
            return False
        self._right[digest] = None
        if len(self._right) > _REMEMBERED:
            self._right.popitem(last=False)
        return True

    def close(self) -> None:
        """End the thread without waiting for it."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class _Bucket:
    """A token bucket: one request an interval, and as many at once as the burst."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._settings = (0.0, 0)
        self._tokens = 0.0
        self._at = 0.0

    def take(self, interval: float, burst: int) -> bool:
        now = self._clock()
        if self._settings != (interval, burst):
            self._settings, self._tokens, self._at = (interval, burst), float(burst), now
        self._tokens = min(float(burst), self._tokens + (now - self._at) / interval)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def _matches(password: bytes, hashed: bytes) -> bool:
    try:
        # bcrypt reads 72 bytes; newer versions of the library refuse more instead of ignoring them.
        return bcrypt.checkpw(password[:72], hashed)
    except ValueError:
        return False


def _credentials(headers: list[bytes]) -> tuple[str | None, bytes]:
    """User and password of one well-formed Basic header (RFC 7617), else no user."""
    if len(headers) != 1:
        return None, b""
    scheme, _, encoded = headers[0].partition(b" ")
    if scheme.lower() != b"basic":
        return None, b""
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (user.decode() if colon else None), password
    except (binascii.Error, UnicodeDecodeError):
        return None, b""


def _declared_length(headers: list[tuple[bytes, bytes]]) -> int:
    return next((int(value) for name, value in headers if name == b"content-length"), 0)


def _with_headers(send: Send, extra: tuple[tuple[bytes, bytes], ...]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", ()))
            names = {name.lower() for name, _ in given}
            message = {**message, "headers": given + [pair for pair in extra if pair[0] not in names]}
        await send(message)

    return sending


async def _answer(send: Send, status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    body = f"{text}\n".encode()
    plain = (
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    )
    await send({"type": "http.response.start", "status": status, "headers": [*plain, *headers]})
    await send({"type": "http.response.body", "body": body})


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"
