"""A connection to an HTTP server under a total deadline.

A socket time-out bounds one read, so a server that sends a byte a second would never pass it: here another thread, a
timer, shuts the socket when the whole exchange is over its time.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator
from threading import Timer
from urllib.parse import SplitResult


class CuttableConnection(http.client.HTTPConnection):
    """A connection that can be cut at any time from another thread.

    It keeps a hold of its own on the socket, since http.client lets go of it before a body without a length is read,
    and TLS takes it over before the handshake.
    """

    def __init__(self, parts: SplitResult, deadline: float, context: ssl.SSLContext | None) -> None:
        secure = parts.scheme == "https"
        super().__init__(parts.hostname or "", parts.port or (443 if secure else 80), timeout=deadline)
        self._tls = (context or ssl.create_default_context()) if secure else None
        self._held: socket.socket | None = None
        self.was_cut = False

    def connect(self) -> None:
        """Connect, with TLS where the URL says so."""
        connected = socket.create_connection((self.host, self.port), self.timeout)
        try:
            self._held = connected.dup()
            if self.was_cut:
                raise TimeoutError
            tls = self._tls
            self.sock = connected if tls is None else tls.wrap_socket(connected, server_hostname=self.host)
        except BaseException:
            connected.close()
            raise

    def cut(self) -> None:
        """End whatever goes on, now or as soon as it is connected."""
        self.was_cut = True
        if self._held is not None:
            with contextlib.suppress(OSError):
                self._held.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Close everything."""
        self.close()
        if self._held is not None:
            self._held.close()


class ExchangeError(Exception):
    """An exchange that came to nothing, in one line; `late` says that its deadline passed."""

    def __init__(self, message: str, *, late: bool = False) -> None:
        super().__init__(message)
        self.late = late


@contextlib.contextmanager
def within(deadline: float, parts: SplitResult, context: ssl.SSLContext | None) -> Iterator[CuttableConnection]:
    """A connection to the server of a URL for one exchange, cut after `deadline` seconds and closed at the end.

    Raises:
        ExchangeError: for what the connection, http.client or a ValueError tell of; other errors of the block stay what
            they are, unless they came of the cut.
    """
    connection = CuttableConnection(parts, deadline, context)
    timer = Timer(deadline, connection.cut)
    timer.daemon = True
    timer.start()
    late = ExchangeError(f"no complete answer within {deadline:g} s", late=True)
    try:
        yield connection
    except Exception as failure:
        if connection.was_cut or isinstance(failure, TimeoutError):
            raise late from None
        if isinstance(failure, (OSError, http.client.HTTPException, ValueError)):
            raise ExchangeError(_cause(failure, parts)) from None
        raise
    else:
        if connection.was_cut:  # a body without a length ends like any other when its socket is shut
            raise late
    finally:
        timer.cancel()
        connection.cut()
        connection.release()


def _cause(failure: Exception, parts: SplitResult) -> str:
    """What went wrong in an exchange with the server of a URL, in one line."""
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
