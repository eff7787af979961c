"""What a tap puts into the queue: bytes as they came, with what is known of them; decoded in the scorer alone."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypedDict

Kind = Literal["http", "otlp-traces", "otlp-logs", "cloudevent", "litellm", "jsonl", "feedback"]


class Meta(TypedDict, total=False):
    """Header of an envelope. `tap` and `kind` are always there.

    For kind `http` the parts are (request body, response body) as on the wire, still content-encoded, without
    transfer-encoding. Header names are lower-case. `arrivals` are `[offset, seconds]` pairs: how much of the response
    body had come by when, in seconds since the request began; the first few chunks and the last.
    Other kinds have one part, the body.
    """

    tap: str
    kind: Kind
    time: float  # epoch seconds at which the request began, or the record arrived
    queued: float  # when it was put into the queue, on the machine's monotonic clock
    sampled: Literal["rate", "kept"]
    content_type: str
    content_encoding: str
    headers: dict[str, str]  # of a CloudEvent: its ce- headers
    # kind http
    method: str
    path: str  # with the query
    status: int
    request_headers: dict[str, str]  # only those that mean something to a decoder; never authorization or cookies
    response_headers: dict[str, str]
    arrivals: list[list[float]]
    duration: float  # seconds from the request's first byte to the response's last
    ended: Literal["complete", "client_abort", "interrupted", "error"]
    session: str
    request_truncated: bool
    response_truncated: bool
    # kind jsonl
    file: str
    line: int


class Envelope(NamedTuple):
    """One record of a tap."""

    meta: dict[str, Any]  # a Meta; a plain dict once it has travelled
    parts: list[bytes]

    @property
    def size(self) -> int:
        """Bytes held for it, about."""
        return sum(map(len, self.parts)) + 512
