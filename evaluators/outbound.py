"""HTTP requests that the evaluator sends of its own accord: to an index that is probed, to a judge.

One request, one connection, under a total deadline and with a limit on the answer. Redirects are not followed: they
would carry texts to another server than the one configured.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer
from urllib.parse import urlsplit

from palegreen.runtime.cuttable import CuttableConnection, cause

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


def send(request: Request, deadline: float, context: ssl.SSLContext | None = None) -> bytes:
    """The body of the answer, whose status must be 2xx; `deadline` is in seconds. Raises OutboundError."""
    parts = urlsplit(request.url)
    connection = CuttableConnection(parts, deadline, context)
    timer = Timer(deadline, connection.cut)
    timer.daemon = True
    timer.start()
    late = f"no complete answer within {deadline:g} s"
    try:
        body = _exchange(connection, request)
    except (OutboundError, OSError, http.client.HTTPException, ValueError) as failure:
        if connection.was_cut or isinstance(failure, TimeoutError):
            raise OutboundError(late, late=True) from None
        if isinstance(failure, OutboundError):
            raise
        raise OutboundError(cause(failure, parts)) from None
    else:
        if connection.was_cut:  # a body without a length ends like any other when its socket is shut
            raise OutboundError(late, late=True)
        return body
    finally:
        timer.cancel()
        connection.cut()
        connection.release()


def trusting(ca_file: Path | None) -> ssl.SSLContext | None:
    """What verifies servers by the authority in a file, None for the system's. Raises OSError: unusable."""
    return ssl.create_default_context(cafile=str(ca_file)) if ca_file is not None else None


def _exchange(connection: http.client.HTTPConnection, request: Request) -> bytes:
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
            if len(body) > LIMIT:
                raise OutboundError(f"the answer is over the limit of {LIMIT} bytes")
        if declared is not None and len(body) < declared:
            raise OutboundError(f"the answer ended after {len(body)} of {declared} bytes")
        return bytes(body)
