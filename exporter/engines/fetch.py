"""HTTP GET of an engine's page under a total deadline and a body limit.

A socket time-out bounds one read, so a server that sends a byte a second would never pass it: here a timer shuts
the socket when the whole exchange is over its time.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Timer
from urllib.parse import SplitResult, urlsplit

_CHUNK = 256 * 1024


class FetchError(Exception):
    """There is no body to read; the message is one line. `status` is the HTTP status if there was one."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Fetched:
    """Body and content type (lower case, with parameters) of a 200 answer."""

    body: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Fetches pages of one server. `url` gives scheme, host and port; `deadline` is in seconds, `limit` in bytes."""

    url: str
    deadline: float
    limit: int
    headers: Mapping[str, str] = field(default_factory=dict)
    context: ssl.SSLContext | None = None

    def get(self, path: str) -> Fetched:
        """GET one path. Redirects are not followed: they would lead to another server than the one configured.

        Raises FetchError.
        """
        parts = urlsplit(self.url)
        connection = self._connection(parts)
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            if connection.sock is not None:
                try:
                    connection.sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    connection.sock.close()

        timer = Timer(self.deadline, expire)
        timer.daemon = True
        timer.start()
        late = f"no complete answer within {self.deadline:g} s"
        try:
            fetched = self._exchange(connection, path)
        except (OSError, http.client.HTTPException, ValueError) as failure:
            raise FetchError(late if expired or isinstance(failure, TimeoutError) else _cause(failure, parts)) from None
        else:
            if expired:  # a body without a length ends like any other when its socket is shut
                raise FetchError(late)
            return fetched
        finally:
            timer.cancel()
            connection.close()

    def _connection(self, parts: SplitResult) -> http.client.HTTPConnection:
        host = parts.hostname or ""
        if parts.scheme == "https":
            return http.client.HTTPSConnection(host, parts.port, timeout=self.deadline, context=self.context)
        return http.client.HTTPConnection(host, parts.port, timeout=self.deadline)

    def _exchange(self, connection: http.client.HTTPConnection, path: str) -> Fetched:
        # text first: OpenMetrics would bring exemplars and timestamps that nothing here reads
        accept = "text/plain;version=0.0.4;q=1,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1"
        connection.request("GET", path, headers={"Accept": accept, "Accept-Encoding": "identity", **self.headers})
        response = connection.getresponse()
        if response.status != 200:
            raise FetchError(_refusal(response), response.status)
        if response.headers.get("Content-Encoding", "identity") not in ("", "identity"):
            raise FetchError(f"body is encoded as {response.headers['Content-Encoding']}, which was not asked for")
        declared = response.length
        if declared is not None and declared > self.limit:
            raise FetchError(f"body of {declared} bytes is over the limit of {self.limit}")
        body = bytearray()
        while chunk := response.read1(_CHUNK):
            body += chunk
            if len(body) > self.limit:
                raise FetchError(f"body is over the limit of {self.limit} bytes")
        if declared is not None and len(body) < declared:
            raise FetchError(f"body ended after {len(body)} of {declared} bytes")
        return Fetched(bytes(body), response.headers.get("Content-Type", "").lower())


def _refusal(response: http.client.HTTPResponse) -> str:
    if 300 <= response.status < 400:
        return f"redirected (HTTP {response.status}) to {response.headers.get('Location', '?')[:200]}"
    return f"HTTP {response.status} {response.reason}"


def _cause(failure: Exception, parts: SplitResult) -> str:
    if isinstance(failure, ConnectionRefusedError):
        return f"connection refused by {parts.netloc}"
    if isinstance(failure, socket.gaierror):
        return f"host {parts.hostname} is not known"
    if isinstance(failure, http.client.BadStatusLine):
        return "the server does not speak HTTP or closed the connection"
    if isinstance(failure, http.client.IncompleteRead):
        return f"body ended after {len(failure.partial)} bytes"
    text = " ".join(str(failure).split()) or type(failure).__name__
    return f"{type(failure).__name__}: {text}"[:300]
