"""One HTTP request to a replica: over by its deadline, however slowly it is answered, and soon after a stop."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Literal
from urllib.parse import urlsplit

import h11
import orjson
from pydantic import TypeAdapter, ValidationError

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.probes.config import CanaryConfig
from palegreen.evaluators.sample import CANARY
from palegreen.runtime.clienttls import verifying
from palegreen.runtime.settings import Url
from palegreen.runtime.yamlfile import ConfigError

Reason = Literal["connection", "timeout", "interrupted", "malformed", "refused", "busy", "secret", "stopped"]

CANARY_HEADER = "x-palegreen-canary"
_MOST = 4 << 20  # bytes of an answer
_SLICE = 0.25  # seconds between two looks at whether to stop
_EXCERPT = 160


class AskError(Exception):
    """There is no answer to use; one line. `status` is the HTTP status, 0 where there was none.

    `reason` is connection (none could be made), timeout, interrupted (it ended in the middle), malformed, refused
    (another status than 2xx, or an error in the stream), busy (429 or 503), secret (the file cannot be read) or
    stopped.
    """

    def __init__(self, reason: Reason, message: str, status: int = 0, body: bytes = b"") -> None:
        super().__init__(message)
        self.reason = reason
        self.status = status
        self.body = body


@dataclass(slots=True)
class Answer:
    """An answer of status 2xx. `arrivals`: how many bytes of the body had come by when, in seconds since the start."""

    content_type: str = ""
    body: bytearray = field(default_factory=bytearray)
    arrivals: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Replica:
    """Where a replica is and what it wants to see."""

    url: Url
    api_key_file: Path | None = None
    api_key_header: str = "authorization"
    ca_file: Path | None = None
    insecure: bool = False
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def of(cls, config: EvaluateConfig, canary: CanaryConfig) -> Replica:
        """As configured: the canaries' URL, else the upstream."""
        return cls(
            canary.url or config.upstream or "",
            canary.api_key_file,
            canary.api_key_header,
            config.upstream_ca_file,
            config.upstream_insecure_skip_verify,
        )

    def ask(self, path: str, *, timeout: float, stopped: Event, body: Mapping[str, object] | None = None) -> Answer:
        """GET, or POST with a JSON body, of a path below the URL; the name of the API's version stands there once.

        Raises:
            AskError: there is no answer of status 2xx within `timeout` seconds.
        """
        parts = urlsplit(self.url)
        prefix = parts.path.rstrip("/")
        if path.startswith("/v1/"):
            prefix = prefix.removesuffix("/v1")
        content = b"" if body is None else orjson.dumps(body)
        request = h11.Request(
            method="GET" if body is None else "POST",
            target=(prefix + path).encode(),
            headers=[
                ("host", parts.netloc),
                ("connection", "close"),
                ("accept", "*/*"),
                ("user-agent", CANARY),
                (CANARY_HEADER, "1"),
                *self._secret(),
                *([("content-type", "application/json"), ("content-length", str(len(content)))] if content else ()),
            ],
        )
        began = self.clock()
        with self._connected(timeout, stopped) as connection:
            return self._exchange(connection, request, content, began, began + timeout, stopped)

    def _secret(self) -> list[tuple[str, str]]:
        if self.api_key_file is None:
            return []
        try:
            secret = self.api_key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as failure:
            why = failure.strerror if isinstance(failure, OSError) else "not UTF-8"
            raise AskError("secret", f"api_key_file {self.api_key_file}: {why}") from None
        if not secret.isascii() or not secret.isprintable():
            raise AskError("secret", f"api_key_file {self.api_key_file}: more than one line of ASCII")
        bearer = "Bearer " if self.api_key_header.lower() == "authorization" else ""
        return [(self.api_key_header, bearer + secret)]

    def _connected(self, timeout: float, stopped: Event) -> socket.socket:
        parts = urlsplit(self.url)
        address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        if stopped.is_set():
            raise AskError("stopped", "stopped")
        raw: socket.socket | None = None
        try:
            raw = socket.create_connection(address, timeout)
            if parts.scheme == "https":
                return verifying(self.ca_file, self.insecure).wrap_socket(raw, server_hostname=address[0])
        except TimeoutError:
            _closed(raw)
            raise AskError("timeout", f"no connection within {timeout:g} s") from None
        except (OSError, UnicodeError) as failure:
            _closed(raw)
            raise AskError("connection", f"no connection: {_why(failure)}") from None
        return raw

    def _exchange(
        self,
        connection: socket.socket,
        request: h11.Request,
        content: bytes,
        began: float,
        until: float,
        stopped: Event,
    ) -> Answer:
        http = h11.Connection(h11.CLIENT)
        answer, status, ended = Answer(), 0, False
        try:
            head = http.send(request) or b""
            connection.sendall(head + (http.send(h11.Data(data=content)) or b"" if content else b""))
            http.send(h11.EndOfMessage())
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    data = self._received(connection, until, stopped)
                    ended = not data
                    http.receive_data(data)
                elif isinstance(event, h11.Response):
                    status = event.status_code
                    headers = dict(event.headers)
                    answer.content_type = headers.get(b"content-type", b"").decode("latin-1")
                elif isinstance(event, h11.Data):
                    answer.body += event.data
                    answer.arrivals.append((len(answer.body), self.clock() - began))
                    if len(answer.body) > _MOST:
                        raise AskError("malformed", f"an answer of more than {_MOST >> 20} MiB", status)
                elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                    break
        except h11.RemoteProtocolError as failure:
            if ended:
                where = "in the middle of the answer" if status else "without an answer"
                raise AskError("interrupted", f"the engine closed the connection {where}", status) from None
            raise AskError("malformed", f"no HTTP: {failure}", status) from None
        except TimeoutError:
            raise AskError("timeout", f"no whole answer within {until - began:g} s", status) from None
        except OSError as failure:
            raise AskError("interrupted", f"the connection broke: {_why(failure)}", status) from None
        answer.seconds = self.clock() - began
        if not 200 <= status < 300:
            excerpt = " ".join(bytes(answer.body[:_EXCERPT]).decode("utf-8", "replace").split())
            reason: Reason = "busy" if status in (429, 503) else "refused"
            raise AskError(reason, f"HTTP {status}: {excerpt}", status, bytes(answer.body))
        return answer

    def _received(self, connection: socket.socket, until: float, stopped: Event) -> bytes:
        """The next bytes, none at the end. Raises TimeoutError and AskError."""
        while True:
            if stopped.is_set():
                raise AskError("stopped", "stopped")
            left = until - self.clock()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(min(left, _SLICE))
            try:
                return connection.recv(1 << 16)
            except TimeoutError:
                continue


def replica(url: str, **known: Any) -> Replica:
    """A replica at a URL that a person has given; `known` are further fields. Raises ConfigError, one line."""
    try:
        return Replica(TypeAdapter(Url).validate_python(url), **known)
    except ValidationError as refused:
        raise ConfigError(f"--url: {refused.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def _closed(connection: socket.socket | None) -> None:
    if connection is not None:
        connection.close()


def _why(failure: Exception) -> str:
    if isinstance(failure, ssl.SSLCertVerificationError):
        return failure.verify_message
    return getattr(failure, "strerror", None) or type(failure).__name__
