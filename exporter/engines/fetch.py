"""HTTP GET of an engine's page under a total deadline and a body limit."""

from __future__ import annotations

import http.client
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from palegreen.runtime.cuttable import ExchangeError, within
from palegreen.runtime.secretfile import read_secret

_CHUNK = 256 * 1024
_EXCERPT = 4096  # bytes of a refusal that are looked at


class FetchError(Exception):
    """There is no page to read; the message is one line.

    `status` is the HTTP status if there was one, `body` the beginning of what came with it.
    """

    def __init__(self, message: str, status: int | None = None, body: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.body = body


@dataclass(frozen=True, slots=True)
class Fetched:
    """Body and content type (lower case, with parameters) of a 200 answer."""

    body: bytes
    content_type: str

    @property
    def html(self) -> bool:
        """Whether it is a web page, whatever it was asked for: some servers answer every path with one."""
        return "text/html" in self.content_type or self.body[:512].lstrip()[:1] == b"<"


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Fetches pages of one server. `url` gives scheme, host and port; `deadline` is in seconds, `limit` in bytes."""

    url: str
    deadline: float
    limit: int
    token_file: Path | None = None
    context: ssl.SSLContext | None = None

    def get(self, path: str) -> Fetched:
        """GET one path. Redirects are not followed: they would lead to another server than the one configured.

        Raises FetchError.
        """
        try:
            with within(self.deadline, urlsplit(self.url), self.context) as connection:
                return self._exchange(connection, path)
        except ExchangeError as failure:
            raise FetchError(str(failure)) from None

    def _exchange(self, connection: http.client.HTTPConnection, path: str) -> Fetched:
        # OpenMetrics is not named: prometheus_client prefers it whatever its q, and then writes vllm:x as vllm_x
        accept = "text/plain;version=0.0.4,*/*;q=0.1"
        headers = {"Accept": accept, "Accept-Encoding": "identity"}
        if self.token_file is not None:
            headers["Authorization"] = f"Bearer {read_secret(self.token_file, 'token')}"
        connection.request("GET", path, headers=headers)
        with connection.getresponse() as response:
            return self._read(response)

    def _read(self, response: http.client.HTTPResponse) -> Fetched:
        if response.status != 200:
            raise FetchError(_refusal(response), response.status, response.read1(_EXCERPT))
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
