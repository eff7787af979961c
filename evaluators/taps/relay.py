"""One client connection and its own upstream connection: bytes pass as they are, and a copy is observed.

What upstream sends is written to the client before anybody looks at it. Of a request only two things change: the Host
field becomes upstream's, and the path of the upstream's URL goes before the target's. Nothing is added: the pair of
connections stands for the client, so Connection, Expect and Upgrade mean what the client means, and X-Forwarded-For
stays as the balancers in front have set it.

Requests that are ambiguous (`http1`) are refused and never reach upstream. A request waits until the response before
it is over, so the bytes of one turn are never taken for those of another; and no two clients share an upstream
connection, so whatever a client smuggles, it answers for alone. Behind a head that was understood, a body or response
that is malformed is relayed as it is, and only the observer gives up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Concatenate, ParamSpec, cast

from palegreen.evaluators.sample import Ended
from palegreen.evaluators.taps import http1
from palegreen.evaluators.taps.exchange import Exchange, Tap
from palegreen.evaluators.taps.http1 import Body, MalformedError, Request, Response, UntilClose
from palegreen.evaluators.taps.refusal import refusal
from palegreen.evaluators.taps.upstream import Target, Upstream, tuned

P = ParamSpec("P")

HOLD = 64 << 10  # bytes of requests that wait for upstream or for their turn before the client is no longer read
LINGER_SECONDS = 2.0


@dataclass(slots=True)
class Shared:
    """What the relays of one proxy share."""

    target: Target
    tap: Tap
    relays: set[Relay] = field(default_factory=set)
    draining: bool = False


@dataclass(slots=True)
class _Turn:
    """The request that is being answered, as far as relaying depends on it."""

    method: bytes
    last: bool  # the connection ends behind it
    reused: bool  # the upstream connection had served another
    sent: bool = False
    answered: bool = False
    over: bool = False


class Relay(asyncio.Protocol):
    """The client's end, and everything about the pair."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._client: asyncio.Transport
        self._upstream: Upstream | None = None
        self._turn: _Turn | None = None
        self._exchange: Exchange | None = None
        # Requests: what is being read, what waits behind it, whether all passes unread
        self._heads = http1.request_heads()
        self._began = 0.0
        self._body: Body | None = None
        self._held = b""
        self._requests_pass = False
        # Responses
        self._response_heads = http1.response_heads()
        self._response_body: Body | None = None
        self._responses_pass = False
        # Flow and ends
        self._client_ended = self._upstream_ended = self._client_is_full = False
        self._lingering: asyncio.TimerHandle | None = None

    # The client's connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self._client = cast(asyncio.Transport, transport)
        tuned(self._client)
        self._shared.relays.add(self)
        self._count_connections()
        if self._shared.draining:
            self._close()

    def data_received(self, data: bytes) -> None:
        """Bytes of requests."""
        if self._lingering is not None:
            return
        if self._requests_pass:
            self._to_upstream(data)
        else:
            data, self._held = self._held + data, b""
            self._requests(data)
        self.pace()

    def eof_received(self) -> bool:
        """The client sends no more; upstream is told, and decides whether it still answers, as it would without us."""
        self._client_ended = True
        if self._lingering is not None or self._idle or self._upstream_ended or not self._client.can_write_eof():
            return False
        return self._pass_end()

    def connection_lost(self, _exc: Exception | None) -> None:
        """The client is gone, so that upstream's work is in vain."""
        self._finish("client_abort")
        self._drop_upstream()
        if self._lingering is not None:
            self._lingering.cancel()
        self._shared.relays.discard(self)
        self._count_connections()

    def pause_writing(self) -> None:
        """The client does not keep up, so upstream has to wait."""
        self._client_is_full = True
        if self._upstream is not None:
            self._upstream.pause(True)

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._client_is_full = False
        if self._upstream is not None:
            self._upstream.pause(False)

    def drain(self) -> None:
        """Close now if nothing is under way, else behind it."""
        if self._idle:
            self._close()

    def abort(self) -> None:
        """Close at once."""
        self._client.abort()

    # Requests

    def _requests(self, data: bytes) -> None:
        """Send what is whole or part of the turn's request, and only then look at what it is."""
        out: list[bytes] = []
        content: list[bytes] | None = [] if self._exchange is not None and self._exchange.holds_request else None
        begun: Request | None = None
        broken: MalformedError | None = None
        at = start = 0
        try:
            while at < len(data):
                if self._body is None:
                    if self._turn is not None and not self._responses_pass:
                        self._held = data[at:]
                        break
                    if self._heads.empty:
                        self._began = time.monotonic()
                    raw, at = self._heads.take(data, at)
                    if raw is None:
                        break
                    begun, content = http1.parse_request(raw), []
                    self._body = self._begin(begun)
                    out.append(self._shared.target.addressed(begun))
                start = at
                at = self._body.feed(data, at, content)
                out.append(data[start:at])
                if self._body.done:
                    self._body = None
                    if self._turn is not None:
                        self._turn.sent = True
        except MalformedError as problem:
            if self._body is None:
                self._refuse(problem)
                return
            self._requests_pass, broken = True, problem
            out.append(data[start:])
        if out:
            self._to_upstream(b"".join(out))
        if begun is not None and not self._responses_pass:
            self._exchange = self._shared.tap.begin(begun, self._began)
        if content:
            self._tell(Exchange.request_content, content)
        if broken is not None:
            self._lose_track("a request's body", broken)
        if self._turn is not None and self._turn.over and self._turn.sent:
            self._next()

    def _begin(self, request: Request) -> Body:
        body = http1.request_body(request)
        self._finish("complete")  # one whose response is no longer read has no other end
        self._turn = _Turn(request.method, request.closes, reused=self._upstream is not None)
        return body

    def _refuse(self, problem: MalformedError) -> None:
        if not self._responses_pass:
            self._client.write(refusal(problem.status, str(problem), "invalid_request_error"))
            self._shared.tap.tally.count("palegreen_proxy_requests_total", f"{problem.status // 100}xx", "complete")
        self._close()

    def _to_upstream(self, data: bytes) -> None:
        if self._upstream is None:
            self._response_heads = http1.response_heads()
            self._upstream = Upstream(self._shared.target, self)
            self._upstream.pause(self._client_is_full)
        self._upstream.write(data)

    # Upstream's connection

    def upstream_sent(self, data: bytes) -> None:
        """Bytes of responses: first they go on their way, then they are looked at."""
        self._client.write(data)
        if self._responses_pass:
            return
        over = False
        try:
            over = self._responses(data)
        except MalformedError as problem:
            self._responses_pass = True
            self._lose_track("a response", problem)
        except Exception as error:  # noqa: BLE001  # nothing of the observer's may break the relay
            self._responses_pass = True
            self._tap_failed(error)
        if over:
            self._response_is_over()
        elif self._responses_pass:
            self._go_on()

    def upstream_ended(self) -> bool:
        """Half-closed: only passed on where both sides talk as they like."""
        if self._turn is None and self._requests_pass and not self._client_ended and self._client.can_write_eof():
            self._client.write_eof()
            self._upstream_ended = True
        return self._upstream_ended

    def upstream_lost(self, error: Exception | None) -> None:
        """Closed. Where nothing is under way the client need not know: its next request opens another."""
        self._upstream = None
        if self._idle and not self._responses_pass:
            return
        turn = self._turn
        if turn is None or turn.over:
            pass
        elif self._responses_pass or (error is None and isinstance(self._response_body, UntilClose)):
            self._finish("complete")
        elif self._client_ended:
            self._finish("client_abort")
        elif turn.answered:
            self._finish("interrupted")
        elif turn.reused:
            # It may have closed while the request was on its way. Clients know that of connections used before and
            # ask again, which a proxy must not do for them (RFC 9112, 9.3.1).
            self._finish("error")
        else:
            self._fail(502, "upstream closed the connection without a response")
        self._close()

    def upstream_unreachable(self, problem: str, timed_out: bool) -> None:
        """There is nobody to relay to."""
        self._upstream = None
        self._shared.tap.complain("proxy: %s (%s)", problem, self._shared.target.authority.decode())
        self._fail(504 if timed_out else 502, problem)
        self._close()

    def pace(self) -> None:
        """Read from the client only as fast as upstream takes it."""
        if self._client.is_closing():
            return
        waiting = self._upstream.waiting if self._upstream is not None else 0
        if self._lingering is None and max(waiting, len(self._held)) > HOLD:
            self._client.pause_reading()
        else:
            self._client.resume_reading()

    # Responses

    def _responses(self, data: bytes) -> bool:
        """Read on; whether the turn's response is over."""
        turn, exchange, at = self._turn, self._exchange, 0
        if turn is None or turn.over:
            raise MalformedError("bytes that no request asked for")
        turn.answered = True
        now = time.monotonic()
        while at < len(data):
            if self._response_body is None:
                raw, at = self._response_heads.take(data, at)
                if raw is None:
                    return False
                head = http1.parse_response(raw)
                if head.status == 101:
                    self._switch(head, now)
                    return False
                if head.status < 200:
                    continue
                self._response_body = http1.response_body(head, turn.method)
                turn.last = turn.last or head.closes
                self._tell(Exchange.responded, head, now)
            content: list[bytes] | None = [] if exchange is not None and exchange.holds_response else None
            at = self._response_body.feed(data, at, content)
            if content:
                self._tell(Exchange.response_content, content, now)
            if self._response_body.done:
                self._responses_pass = at < len(data)  # more than was asked for
                return True
        return False

    def _switch(self, head: Response, now: float) -> None:
        """Another protocol from here on."""
        self._tell(Exchange.responded, head, now)
        self._tell(Exchange.abandon, "undecodable")
        self._finish("complete")
        self._turn = self._body = None
        self._requests_pass = self._responses_pass = True
        if self._held:
            self._to_upstream(self._held)
            self._held = b""

    def _response_is_over(self) -> None:
        self._finish("complete")
        self._response_body = None
        if self._turn is not None:
            self._turn.over = True
            if self._turn.last or self._shared.draining:
                self._close()
            elif self._turn.sent:
                self._next()

    def _next(self) -> None:
        self._turn = None
        if self._shared.draining or (self._client_ended and not self._held):
            self._close()
        else:
            self._go_on()

    def _go_on(self) -> None:
        """Read the requests that had to wait."""
        held, self._held = self._held, b""
        if held:
            self._requests(held)
            if self._client_ended and (self._idle or not self._pass_end()):
                self._close()
        self.pace()

    # Endings

    @property
    def _idle(self) -> bool:
        return self._turn is None and not self._requests_pass

    def _pass_end(self) -> bool:
        """Tell upstream that the client sends no more, once all is sent; False if it cannot be told."""
        return bool(self._held) or self._upstream is None or self._upstream.end()

    def _fail(self, status: int, problem: str) -> None:
        """Upstream gave no response at all."""
        self._finish("error", status)
        self._client.write(refusal(status, problem, "upstream_error"))

    def _close(self) -> None:
        """Close behind what was written. What the client still sends is read: else it could lose what we wrote."""
        self._drop_upstream()
        self._held = b""
        if self._lingering is not None or self._client.is_closing():
            return
        if self._client_ended or not self._client.can_write_eof():
            self._client.close()
        else:
            self._client.write_eof()
            self._lingering = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._client.close)
            self.pace()

    def _drop_upstream(self) -> None:
        if self._upstream is not None:
            self._upstream.abort()
            self._upstream = None

    # The observer

    def _tell(self, what: Callable[Concatenate[Exchange, P], None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Tell the exchange, if there is one; it may fail."""
        if self._exchange is not None:
            try:
                what(self._exchange, *args, **kwargs)
            except Exception as error:  # noqa: BLE001  # nothing of the tap's may break the relay
                self._tap_failed(error)

    def _tap_failed(self, error: Exception) -> None:
        if self._exchange is not None:
            self._exchange.release()
            self._exchange = None
        self._shared.tap.defect(error)

    def _finish(self, ended: Ended, answered: int | None = None) -> None:
        self._tell(Exchange.finish, ended, time.monotonic(), answered, self._client_ended)
        self._exchange = None

    def _lose_track(self, where: str, problem: MalformedError) -> None:
        self._shared.tap.complain("proxy: %s cannot be followed and is relayed unread: %s", where, problem)
        self._tell(Exchange.abandon, "undecodable")

    def _count_connections(self) -> None:
        self._shared.tap.tally.set("palegreen_proxy_connections", len(self._shared.relays))
