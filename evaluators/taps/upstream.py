"""One connection to upstream, which can be written to before it is there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from dataclasses import dataclass
from typing import Protocol, cast

from palegreen.evaluators.taps.http1 import Request

CONNECT_SECONDS = 10.0  # with TLS
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go. `authority` is the Host field's value, `prefix` what goes before each path."""

    host: str
    port: int
    authority: bytes
    prefix: bytes = b""
    tls: ssl.SSLContext | None = None

    def addressed(self, request: Request) -> bytes:
        """The head that upstream gets of a request: with its own Host and path, else as it is."""
        place, raw = request.target, request.raw
        if place[:7].lower() == b"http://" or place[:8].lower() == b"https://":  # as for a forward proxy
            place = b"/" + b"".join(place.split(b"/", 3)[3:])
        if place.startswith(b"/"):
            place = self.prefix + place
        version = raw.index(b" HTTP/1.")
        host = raw.lower().find(b"\r\nhost:")
        if host < 0:  # HTTP/1.0 has none
            host = after = raw.index(b"\r\n")
        else:
            after = raw.index(b"\r\n", host + 2)
        own = b"\r\nHost: " + self.authority
        return request.method + b" " + place + raw[version:host] + own + raw[after:]


class Listener(Protocol):
    """What hears of an upstream connection."""

    def upstream_sent(self, data: bytes) -> None:
        """Bytes came."""

    def upstream_ended(self) -> bool:
        """It sends no more; True keeps the other direction open, else the connection is over now."""

    def upstream_lost(self, error: Exception | None) -> None:
        """It is closed, by upstream unless there is an error."""

    def upstream_unreachable(self, problem: str, timed_out: bool) -> None:
        """There will be no connection."""

    def pace(self) -> None:
        """Whether it keeps up may have changed."""


class Upstream(asyncio.Protocol):
    """Connects on construction. Once aborted it tells its listener nothing more."""

    def __init__(self, target: Target, listener: Listener) -> None:
        self._target = target
        self._listener: Listener | None = listener
        self._transport: asyncio.Transport | None = None
        self._unsent = bytearray()  # until it is connected
        self._ended = self._paused = self._full = False
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    @property
    def waiting(self) -> float:
        """Bytes that wait until it is connected; infinite while it does not keep up."""
        return float("inf") if self._full else len(self._unsent)

    def write(self, data: bytes) -> None:
        """Send, as soon as possible."""
        if self._transport is None:
            self._unsent += data
        else:
            self._transport.write(data)

    def end(self) -> bool:
        """Send no more but keep listening; False where that cannot be said, which is so in TLS."""
        self._ended = True
        if self._transport is not None and self._target.tls is None:
            self._transport.write_eof()
        return self._target.tls is None

    def pause(self, paused: bool) -> None:
        """Stop listening for a while, or go on."""
        self._paused = paused
        if self._transport is not None and not self._transport.is_closing():
            if paused:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once."""
        self._listener = None
        self._connecting.cancel()
        if self._transport is not None:
            self._transport.abort()

    async def _connect(self) -> None:
        target = self._target
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.get_running_loop().create_connection(
                    lambda: self, target.host, target.port, ssl=target.tls
                )
        except TimeoutError:
            problem, timed_out = f"no connection to upstream within {CONNECT_SECONDS:g} s", True
        except (OSError, UnicodeError) as error:
            problem, timed_out = f"no connection to upstream: {_reason(error)}", False
        else:
            return
        if self._listener is not None:
            self._listener.upstream_unreachable(problem, timed_out)

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected, with TLS if there is any."""
        self._transport = cast(asyncio.Transport, transport)
        if self._listener is None:
            self._transport.abort()
            return
        tuned(self._transport)
        if self._unsent:
            self._transport.write(bytes(self._unsent))
            self._unsent.clear()
        if self._ended:
            self.end()
        if self._paused:
            self.pause(True)
        self._listener.pace()

    def data_received(self, data: bytes) -> None:
        """Bytes of responses."""
        if self._listener is not None:
            self._listener.upstream_sent(data)

    def eof_received(self) -> bool:
        """Upstream sends no more."""
        if self._listener is not None and not self._listener.upstream_ended():
            self._gone(None)
        return self._listener is not None

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed, by whichever side."""
        self._gone(exc)

    def pause_writing(self) -> None:
        """Upstream does not keep up."""
        self._full = True
        if self._listener is not None:
            self._listener.pace()

    def resume_writing(self) -> None:
        """Upstream has caught up."""
        self._full = False
        if self._listener is not None:
            self._listener.pace()

    def _gone(self, error: Exception | None) -> None:
        listener = self._listener
        self.abort()
        if listener is not None:
            listener.upstream_lost(error)


def tuned(transport: asyncio.Transport) -> None:
    """Bytes leave at once, and a peer that vanished without a word is noticed after two minutes."""
    connection = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):  # it may be closed already
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or 'failed'}"
    if isinstance(error, socket.gaierror):
        return error.strerror or "its name cannot be resolved"
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number else "failed"
