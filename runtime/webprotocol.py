"""One HTTP/1.1 connection: uvicorn's h11 protocol with the limits that keep a bad client to itself."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from palegreen.runtime.webtls import TlsContext, san_values

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """Bounds of one connection (sizes in bytes, times in seconds) and the number of connections."""

    max_head: int = 16 * 1024
    max_body: int = 64 * 1024
    request: float = 30.0  # to receive a request and take its answer
    keep_alive: int = 120  # longer than a usual scrape interval, so that a scraper keeps its connection
    connections: int = 512


class Protocol(H11Protocol):
    """Drops a connection that stalls, sends too much or has a certificate for nobody we allow."""

    def __init__(self, *, limits: Limits, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.logger = _log
        self._limits = limits
        self._received = 0
        self._watch: asyncio.TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        """Begin, unless the client is one too many or not allowed."""
        if not self._admitted(transport):
            self._refused = True
            transport.abort()
            return
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._disarm()
        self._unset_keepalive_if_required()
        if not self._refused:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, up to the limits."""
        if self._refused or self.transport.is_closing():
            return
        self._received += len(data)
        if self._watch is None:
            self._arm()
        if self._received > self._limits.max_head + self._limits.max_body and self._incomplete():
            _log.warning("connection closed: request over %d bytes", self._limits.max_head + self._limits.max_body)
            self.transport.abort()
            return
        super().data_received(data)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._disarm()
        self._received = 0
        super().on_response_complete()
        if not self.cycle.response_complete:  # a pipelined request has begun
            self._arm()

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection."""
        if self.transport.get_write_buffer_size():  # closing would wait for a client that does not read
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP and close."""
        # Garbage can also come after the head, when an answer is under way and a second cannot be begun.
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade that is offered (h2c, websocket) is ignored, as RFC 9110 7.8 allows."""

    def _admitted(self, transport: asyncio.Transport) -> bool:
        if len(self.connections) >= self._limits.connections:
            _log.warning("connection refused: %d are open", len(self.connections))
            return False
        secured = transport.get_extra_info("ssl_object")
        context = secured.context if secured else None
        if not isinstance(context, TlsContext) or not context.allowed_sans:
            return True
        if context.allowed_sans & san_values(secured.getpeercert()):
            return True
        _log.warning("connection refused: no name of the client's certificate is in client_allowed_sans")
        return False

    def _incomplete(self) -> bool:
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def _arm(self) -> None:
        self._disarm()
        self._watch = self.loop.call_later(self._limits.request, self._stalled)

    def _disarm(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _stalled(self) -> None:
        self._watch = None
        self.transport.abort()
