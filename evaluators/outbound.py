"""HTTP requests that the evaluator sends of its own accord: to an index that is probed, to a judge.

One request, one connection, under a total deadline and with a limit on the answer. Redirects are not followed: they
would carry texts to another server than the one configured.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from palegreen.runtime.cuttable import ExchangeError, within

_CHUNK = 64 * 1024
LIMIT = 8 << 20  # bytes of an answer


class OutboundError(Exception):
    """There is no answer to use; one line that quotes nothing of what was sent or received.

    `late` says that the deadline passed, `status` is that of the answer if there was one.
    """

    def __init__(self, message: str, *, late: bool = False, status: int | None = None) -> None:
        super().__init__(message)
        self.late = late
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


def send(request: Request, deadline: float, context: ssl.SSLContext | None = None, limit: int = LIMIT) -> bytes:
    """The body of the answer, whose status must be 2xx; `deadline` in seconds, `limit` in bytes.

    Raises OutboundError.
    """
    try:
        with within(deadline, urlsplit(request.url), context) as connection:
            return _exchange(connection, request, limit)
    except ExchangeError as failure:
        raise OutboundError(str(failure), late=failure.late) from None


def _exchange(connection: http.client.HTTPConnection, request: Request, limit: int) -> bytes:
    parts = urlsplit(request.url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "palegreen"}
    connection.request(request.method, target, body=request.body, headers={**headers, **request.headers})
    with connection.getresponse() as response:
        if not 200 <= response.status < 300:
            raise OutboundError(f"HTTP {response.status}", status=response.status)
        declared, body = response.length, bytearray()
        while chunk := response.read1(_CHUNK):
            body += chunk
            if len(body) > limit:
                raise OutboundError(f"the answer is over the limit of {limit} bytes")
        if declared is not None and len(body) < declared:
            raise OutboundError(f"the answer ended after {len(body)} of {declared} bytes")
        return bytes(body)
