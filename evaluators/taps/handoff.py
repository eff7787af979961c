"""Where ASGI taps of serving processes on this machine hand their records over: a unix socket of the tap process."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.envelope import Envelope
from palegreen.inprocess.frame import Decoder, FrameError
from palegreen.runtime.tally import Tally
from palegreen.runtime.web import ListenError

log = structlog.get_logger()

_TAP = "asgi"
_MODE = 0o660
_CHUNK = 1 << 18
_UNSAMPLED = ("rate", "status", "canary")


class Handoff:
    """Listens at `config.tap_socket`, gives each record to `put`, and counts what the taps say they saw and lost.

    `put` must not wait. Each frame is answered with one byte once it is taken, so that a tap knows what died with us.
    """

    def __init__(self, config: EvaluateConfig, put: Callable[[Envelope], None], tally: Tally) -> None:
        if config.tap_socket is None:
            raise ValueError("there is no tap_socket")
        self._path = config.tap_socket
        self._largest = config.queue_limit
        self._put = put
        self._tally = tally
        self._server: asyncio.Server | None = None
        self._made: tuple[int, int] = (0, 0)
        self._peers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Begin to listen. Raises ListenError, one line."""
        try:
            listener = _listen(self._path)
        except OSError as refused:
            raise ListenError(f"tap_socket {self._path}: {refused.strerror or refused}") from None
        self._made = _identity(self._path)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=_CHUNK)

    async def stop(self) -> None:
        """Close every connection and remove the socket, unless it is another's by now."""
        if self._server is None:
            return
        self._server.close()
        for peer in list(self._peers):
            peer.close()
        self._server = None
        if _identity(self._path) == self._made:
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._peers.add(writer)
        decoder = Decoder(self._largest)
        try:
            while self._server is not None and (data := await reader.read(_CHUNK)):
                for header, parts in decoder.feed(data):
                    self._take(header, parts)
                    writer.write(b"\0")
            if decoder.partial:  # the serving process ended in the middle of it
                self._tally.count("palegreen_tap_dropped_total", _TAP, "sender_dropped")
        except FrameError as failure:
            log.warning("handoff.malformed", cause=str(failure), effect="the connection is closed")
        except OSError:
            pass  # a serving process that ended; what it had not sent ended with it
        finally:
            self._peers.discard(writer)
            writer.close()

    def _take(self, header: dict[str, Any], parts: list[bytes]) -> None:
        """One frame. Raises FrameError."""
        counts = header.pop("counts", {})
        kind = (header.get("tap"), header.get("kind"), len(parts))
        if kind not in ((_TAP, "http", 2), (_TAP, "counts", 0)) or not _are_counts(counts):
            raise FrameError("a frame that no ASGI tap sends")
        if received := counts.get("received"):
            self._tally.count("palegreen_tap_received_total", _TAP, by=received)
        if dropped := counts.get("dropped"):
            self._tally.count("palegreen_tap_dropped_total", _TAP, "sender_dropped", by=dropped)
        for reason in _UNSAMPLED:
            if unsampled := counts.get(reason):
                self._tally.count("palegreen_tap_unsampled_total", _TAP, reason, by=unsampled)
        if parts:
            self._put(Envelope(header, parts))


def _are_counts(found: Any) -> bool:
    return isinstance(found, dict) and all(type(value) is int and 0 <= value < 1 << 53 for value in found.values())


def _listen(path: Path) -> socket.socket:
    """A listening socket at `path`, in the place of one that nobody listens on. Raises OSError."""
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(_MODE)
        listener.listen(128)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _clear(path: Path) -> None:
    """Remove a socket whose process is gone. Raises OSError where that cannot be, or it is none."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError("there is a file that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except (BlockingIOError, TimeoutError):
            raise OSError("in use by another process") from None
        else:
            raise OSError("in use by another process")


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return (-1, -1)
    return found.st_dev, found.st_ino
