"""Hands records over on a unix socket without ever waiting: what does not fit is dropped and counted.

The reader answers each frame with one byte, so that a frame lost in the kernel with a reader that died is known. The
counts travel in the frames' headers as increases since the last frame that gets through, under `"counts"`; a frame of
kind `counts` has nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import deque
from itertools import islice
from threading import Lock
from typing import Any

from palegreen.inprocess.frame import encode

DROPPED = "dropped"

_LIMIT = 4 << 20  # bytes that wait for the socket
_HEADER = 1024  # bytes of a frame beside its parts, about
_AGAIN = 1.0  # seconds between two attempts to connect, and between two looks at a reader that does not read
_SOON = 0.005  # seconds for which records are gathered, so that a busy server wakes the reader seldom
_TOGETHER = 64  # frames written at once
_FLAGS = socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT

_log = logging.getLogger("palegreen.asgi")


class _Record:
    """What waits: a header and the parts of the body in pieces, encoded when it is first written."""

    __slots__ = ("counts", "data", "header", "is_one", "parts", "size")

    def __init__(self, header: dict[str, Any], parts: list[list[bytes]], is_one: bool = True) -> None:
        self.header, self.parts, self.is_one = header, parts, is_one
        self.size = _HEADER + sum(len(piece) for part in parts for piece in part)
        self.data = b""
        self.counts: dict[str, int] = {}

    def encode(self, counts: dict[str, int]) -> None:
        """Make the frame, which takes the counts with it."""
        header = {**self.header, "counts": counts} if counts else self.header
        self.data = encode(header, [b"".join(part) for part in self.parts])
        self.counts, self.parts = counts, []


class Sender:
    """Writes frames to the socket at `path`, which need not be there; one connection a process, forked ones too.

    `limit` bounds the bytes that wait. Safe to use from several threads.
    """

    def __init__(self, path: str, limit: int = _LIMIT) -> None:
        self._path = path
        self._limit = limit
        self._socket: socket.socket | None = None
        self._begin()

    def __del__(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _begin(self) -> None:
        """The state of a process that has sent nothing; what it inherited belongs to its parent."""
        self._pid = os.getpid()
        self._lock = Lock()
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._waiting: deque[_Record] = deque()  # the first one perhaps in part written
        self._size = 0  # bytes of those
        self._written = 0  # bytes of the first one
        self._unanswered: deque[_Record] = deque()  # written, and not answered yet; without their data
        self._counts: dict[str, int] = {}
        self._connect_at = 0.0
        self._pause = _SOON
        self._due = 0.0

    def count(self, what: str) -> None:
        """Add one to a count, to be told with the next frame or a second later."""
        with self._mine():
            self._add(what)
            self._later()

    def offer(self, header: dict[str, Any], parts: list[list[bytes]]) -> None:
        """Take a record, to be sent within milliseconds; it is dropped when too much waits already.

        Each part of the body is a list of its pieces.
        """
        record = _Record(header, parts)
        with self._mine():
            if self._size + record.size > self._limit:
                self._flush()
            if self._size + record.size > self._limit:
                self._add(DROPPED)
            else:
                self._put(record)
            self._later()

    def tell(self) -> None:
        """Send what waits now, as far as the socket takes it, the counts too."""
        with self._mine():
            self._tell()

    def _mine(self) -> Lock:
        if os.getpid() != self._pid:
            self._begin()
        return self._lock

    def _add(self, what: str, by: int = 1) -> None:
        self._counts[what] = self._counts.get(what, 0) + by

    def _put(self, record: _Record) -> None:
        self._waiting.append(record)
        self._size += record.size

    def _tell(self) -> None:
        if self._counts and not self._waiting:
            self._put(_Record({"tap": "asgi", "kind": "counts"}, [], is_one=False))
        self._flush()

    def _flush(self) -> None:
        """Write as much as the socket takes."""
        if not self._waiting or not self._connected():
            return
        try:
            self._answers()
            while self._waiting and self._socket is not None:
                views = [self._view(record) for record in islice(self._waiting, _TOGETHER)]
                views[0] = views[0][self._written :]
                self._wrote(self._socket.sendmsg(views, (), _FLAGS))
        except BlockingIOError:
            pass
        except OSError as failure:
            self._lose(failure)

    def _view(self, record: _Record) -> memoryview:
        if not record.data:
            counts, self._counts = self._counts, {}
            record.encode(counts)
        return memoryview(record.data)

    def _wrote(self, size: int) -> None:
        self._pause = _SOON
        self._written += size
        while self._waiting and self._written >= len(self._waiting[0].data):
            record = self._waiting.popleft()
            self._size -= record.size
            self._written -= len(record.data)
            record.data = b""
            self._unanswered.append(record)

    def _connected(self) -> bool:
        if self._socket is not None:
            return True
        now = time.monotonic()
        if now < self._connect_at:
            return False
        self._connect_at = now + _AGAIN
        try:
            found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError:  # too many open files
            return False
        found.setblocking(False)
        try:
            found.connect(self._path)  # with a unix socket it succeeds or fails at once
        except OSError:
            found.close()
            return False
        self._socket = found
        return True

    def _answers(self) -> None:
        """Take the reader's answers; without any there may be an end, which sending would meet too."""
        if self._socket is None or not self._unanswered:
            return
        try:
            answered = len(self._socket.recv(4096, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return
        for _ in range(min(answered, len(self._unanswered))):
            self._unanswered.popleft()

    def _lose(self, failure: OSError) -> None:
        """The reader is gone: what it had not answered is lost, what had not begun waits for the next one."""
        before = -1
        while before != len(self._unanswered):
            before = len(self._unanswered)
            try:
                self._answers()
            except OSError:
                break
        if self._written:
            cut = self._waiting.popleft()
            self._size -= cut.size
            cut.data = b""
            self._unanswered.append(cut)
            self._written = 0
        for record in self._unanswered:
            for what, by in record.counts.items():
                self._add(what, by)
            if record.is_one:
                self._add(DROPPED)
        self._unanswered.clear()
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        _log.debug("the evaluator's tap is gone: %s", failure)

    def _later(self) -> None:
        """Have somebody look soon while something waits; at once where the event loop is another than asyncio's."""
        if not self._waiting and not self._counts:
            return
        now = time.monotonic()
        reachable = self._socket is not None or now >= self._connect_at
        pause = self._pause if self._waiting and reachable else _AGAIN
        if now < self._due <= now + pause:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._flush()
            return
        self._pause = min(_AGAIN, 2 * self._pause)
        self._due = now + pause
        loop.call_later(pause, self._look)

    def _look(self) -> None:
        with self._mine():
            if time.monotonic() < self._due - _SOON / 2:
                return  # another look was put before this one
            self._due = 0.0
            self._tell()
            self._later()
