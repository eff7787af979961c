"""One request and its response as the proxy's tap sees them: counted, timed and, where sampled, held for the scorer."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.envelope import Envelope, Meta
from palegreen.evaluators.sample import Ended, Sampled
from palegreen.evaluators.taps.http1 import Request, Response
from palegreen.evaluators.taps.sampling import Reason, Sampler
from palegreen.runtime.exposition import Exemplar
from palegreen.runtime.tally import Tally

_log = logging.getLogger(__name__)

TAP = "proxy"
CANARY_HEADER = b"x-palegreen-canary"
"""Marks our own questions, of the probe process, which are no part of what users see."""

# Ends of the paths that generate text; only POSTs to them are tapped, the rest just passes.
INFERENCE_PATHS = (
    b"/chat/completions",
    b"/completions",
    b"/responses",
    b"/completion",  # llama.cpp
    b"/generate",  # TGI, SGLang, Triton
    b"/generate_stream",
    b"/api/chat",  # Ollama
    b"/api/generate",
    b"/invocations",  # vLLM and TGI on SageMaker
)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)
BUCKETS = {
    "palegreen_proxy_time_to_first_byte_seconds": _SECONDS,
    "palegreen_proxy_request_duration_seconds": _SECONDS,
}

_REQUEST_HEADERS = frozenset({b"content-type", b"content-encoding", b"x-request-id", b"traceparent", b"user-agent"})
_RESPONSE_HEADERS = frozenset({b"content-type", b"content-encoding", b"x-request-id"})
_OWN_HEADERS = b"x-palegreen-"
_SECRET_HEADERS = frozenset({b"authorization", b"proxy-authorization", b"cookie"})
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C Trace Context
_STREAMS = ("text/event-stream", "application/x-ndjson", "application/jsonl")

ARRIVALS = 8
TAIL = 16 << 10
_COMPLAIN_EVERY = 60.0  # seconds


class Held:
    """The beginning of a body up to `limit` bytes, and the last `tail` bytes of one that is longer."""

    def __init__(self, limit: int, tail: int = 0) -> None:
        self.size = 0
        self._limit = limit
        self._tail_size = tail
        self._beginning = bytearray()
        self._tail = bytearray()

    def add(self, piece: bytes) -> int:
        """Hold more; by how many bytes what is held has grown (or shrunk)."""
        before = len(self._beginning) + len(self._tail)
        self.size += len(piece)
        room = self._limit - len(self._beginning)
        self._beginning += piece[:room]
        if self._tail_size and len(piece) > room:
            self._tail += piece[room:][-self._tail_size :]
            if len(self._tail) > 2 * self._tail_size:
                del self._tail[: -self._tail_size]
        return len(self._beginning) + len(self._tail) - before

    @property
    def truncated(self) -> bool:
        """Whether bytes are missing."""
        return self.size > len(self._beginning) + len(self._tail)

    def joined(self) -> bytes:
        """What is held; where the middle is missing, it was cut out at ends of lines."""
        if not self.truncated or not self._tail:
            return bytes(self._beginning + self._tail)
        beginning = self._beginning[: self._beginning.rfind(b"\n") + 1]
        return bytes(beginning + b"\n" + self._tail[self._tail.find(b"\n") + 1 :])


class Tap:
    """What the exchanges of one proxy share.

    `put` takes an Envelope and never blocks. `memory` are the bytes that exchanges under way hold together: beyond
    `queue_limit` those that need more are dropped and counted, so that many long responses at once cannot add up.
    """

    def __init__(self, config: EvaluateConfig, sampler: Sampler, put: Callable[[Envelope], None], tally: Tally) -> None:
        self.sampler = sampler
        self.put = put
        self.tally = tally
        self.session_header = config.session_header.lower().encode()
        self.keep_header = config.keep_header.lower().encode()
        self.request_headers = (_REQUEST_HEADERS | {self.session_header, self.keep_header}) - _SECRET_HEADERS
        self.body_limit = config.body_limit
        self.memory_limit = config.queue_limit
        self.memory = 0
        self.passed = 0.0  # when a token last passed to a user, monotonic seconds
        self._quiet_until: dict[str, float] = {}

    def begin(self, request: Request, began: float) -> Exchange | None:
        """The exchange of a request whose first byte came at `began`; None where observing it fails."""
        try:
            return Exchange(self, request, began)
        except Exception as error:  # noqa: BLE001  # nothing of the tap's may break the relay
            self.defect(error)
            return None

    def dropped(self, reason: str) -> None:
        """Count a record that is lost."""
        self.tally.count("palegreen_tap_dropped_total", TAP, reason)

    def defect(self, error: Exception) -> None:
        """Count a failure of the tap's own code."""
        self.dropped("tap_error")
        # Not its text, which might quote what it choked on.
        kind, where = type(error).__name__, _place(error)
        self.complain("proxy: the tap failed on an exchange, which was relayed: %s at %s", kind, where)

    def complain(self, message: str, *details: object) -> None:
        """Log a message, each at most once a minute."""
        now = time.monotonic()
        if now >= self._quiet_until.get(message, 0.0):
            self._quiet_until[message] = now + _COMPLAIN_EVERY
            _log.warning(message, *details)


def _place(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "?"


class Exchange:
    """One request and its response; times are monotonic seconds. Everything here may fail without harm to the relay."""

    def __init__(self, tap: Tap, request: Request, began: float) -> None:
        self._tap = tap
        self._request = request
        self._began = began
        self._time = time.time() - (time.monotonic() - began)
        self._response: Response | None = None
        self._arrivals: list[list[float]] = []
        self._last_arrival: list[float] = []
        self._memory = 0
        self._sampled: Sampled | None = None
        self._reason: Reason | None = None
        self._held_request: Held | None = None
        self._held_response: Held | None = None
        self._dropped = False
        self._trace = _TRACEPARENT.match(request.fields.get(b"traceparent", b""))
        self._tapped = request.method == b"POST" and request.target.partition(b"?")[0].endswith(INFERENCE_PATHS)
        self._canary = CANARY_HEADER in request.fields
        if self._tapped:
            tap.tally.count("palegreen_tap_received_total", TAP)
        if self._tapped and self._canary:
            self._reason = "canary"
        elif self._tapped:
            tagged = tap.keep_header in request.fields
            self._sampled, self._reason = tap.sampler.decide(self._session, tagged=tagged)
            if self._sampled is not None:
                self._held_request = Held(tap.body_limit)
                self._held_response = Held(tap.body_limit)

    @property
    def holds_request(self) -> bool:
        """Whether the content of the request's body is wanted."""
        return self._held_request is not None

    @property
    def holds_response(self) -> bool:
        """Whether the content of the response's body is wanted."""
        return self._held_response is not None

    def request_content(self, pieces: Sequence[bytes]) -> None:
        """More of the request's body."""
        if self._held_request is not None:
            self._hold(self._held_request, pieces)

    def responded(self, response: Response, now: float) -> None:
        """The head of the final response."""
        self._response = response
        if not self._canary:
            exemplar = self._exemplar(now - self._began)
            self._tap.tally.observe("palegreen_proxy_time_to_first_byte_seconds", now - self._began, exemplar=exemplar)
        if self._tapped and response.status >= 400:
            self._keep_as_error()
        if self._held_response is not None and _is_lines(response):
            self._held_response = Held(self._tap.body_limit, TAIL)

    def response_content(self, pieces: Sequence[bytes], now: float) -> None:
        """More of the response's body."""
        if self._held_response is not None:
            self._hold(self._held_response, pieces)
            if any(b"data:" in piece for piece in pieces):  # a comment that keeps a stream alive is no progress
                self._tap.passed = now
        if self._held_response is not None:
            self._last_arrival = [self._held_response.size, now - self._began]
            if len(self._arrivals) < ARRIVALS:
                self._arrivals.append(self._last_arrival)

    def finish(self, ended: Ended, now: float, answered: int | None = None, client_ended: bool = False) -> None:
        """The exchange is over.

        `answered` is the status of an answer of the proxy's own, where upstream gave none; `client_ended` means that
        the client had hung up before, to which some servers answer with an empty success.
        """
        if ended == "complete" and client_ended and self._held_response is not None and not self._held_response.size:
            ended = "client_abort"
        tally, duration = self._tap.tally, now - self._began
        code = f"{self._response.status // 100}xx" if self._response is not None else "none"
        tally.count("palegreen_proxy_requests_total", code, ended)
        if not self._canary:
            tally.observe("palegreen_proxy_request_duration_seconds", duration, exemplar=self._exemplar(duration))
        if self._tapped and ended == "complete" and code == "2xx":
            self._tap.passed = now
        if self._tapped and ended in ("interrupted", "error"):
            self._keep_as_error()
        try:
            if self._sampled is not None and not self._dropped:
                self._tap.put(self._envelope(ended, duration, answered))
            elif self._reason is not None and not self._dropped:
                tally.count("palegreen_tap_unsampled_total", TAP, self._reason)
        finally:
            self.release()

    def abandon(self, reason: str) -> None:
        """The exchange cannot be followed any further; it is lost for scoring."""
        if self._sampled is not None and not self._dropped:
            self._tap.dropped(reason)
        self._dropped = True
        self.release()

    def release(self) -> None:
        """Let go of what is held."""
        self._tap.memory -= self._memory
        self._memory = 0
        self._held_request = self._held_response = None

    def _keep_as_error(self) -> None:
        if self._sampled is None and not self._canary and self._tap.sampler.keeps_error():
            self._sampled = "kept"
            self._held_response = Held(self._tap.body_limit)

    def _hold(self, held: Held, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            grown = held.add(piece)
            self._memory += grown
            self._tap.memory += grown
        if self._tap.memory > self._tap.memory_limit:
            self.abandon("queue_full")

    def _envelope(self, ended: Ended, duration: float, answered: int | None) -> Envelope:
        request, response = self._held_request, self._held_response
        answer = self._response.fields if self._response is not None else {}
        arrivals = self._arrivals
        if self._last_arrival and self._last_arrival is not arrivals[-1]:
            arrivals = [*arrivals, self._last_arrival]
        meta: Meta = {
            "tap": TAP,
            "kind": "http",
            "time": self._time,
            "sampled": self._sampled or "kept",
            "method": self._request.method.decode("latin-1"),
            "path": self._request.target.decode("latin-1"),
            "request_headers": _decoded(self._request.fields, self._tap.request_headers, _OWN_HEADERS),
            "response_headers": _decoded(answer, _RESPONSE_HEADERS),
            "arrivals": arrivals,
            "duration": duration,
            "ended": ended,
            "session": self._session,
            "request_truncated": request is None or request.truncated,
            "response_truncated": response is None or response.truncated,
        }
        status = self._response.status if self._response is not None else answered
        if status is not None:
            meta["status"] = status
        return Envelope(dict(meta), [held.joined() if held is not None else b"" for held in (request, response)])

    @property
    def _session(self) -> str:
        value = self._request.fields.get(self._tap.session_header, b"")
        if value and self._tap.session_header in _SECRET_HEADERS:
            return blake2b(value, digest_size=16).hexdigest()
        return value.decode("latin-1")

    def _exemplar(self, value: float) -> Exemplar | None:
        return Exemplar(self._trace[1].decode(), value, time.time()) if self._trace else None


def _decoded(fields: Mapping[bytes, bytes], wanted: frozenset[bytes], prefix: bytes = b"\0") -> dict[str, str]:
    """Those that are wanted or begin with `prefix`."""
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in fields.items()
        if name in wanted or name.startswith(prefix)
    }


def _is_lines(response: Response) -> bool:
    """Whether a part of the body's end can be read without what was before it."""
    kind = response.fields.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    return kind in _STREAMS and b"content-encoding" not in response.fields
