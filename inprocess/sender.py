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
from typing import Any, NamedTuple

from palegreen.inprocess.frame import encode

DROPPED = "dropped"

_LIMIT = 4 << 20  # bytes that wait for the socket
_HEADER = 1024  # bytes of a frame beside its parts, about
_AGAIN = 1.0  # seconds between two attempts to connect, and between two looks at a reader that does not read
_SOON = 0.005  # seconds for which records are gathered, so that a busy server wakes the reader seldom
_TOGETHER = 64  # frames written at once
_FLAGS = socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT

_log = logging.getLogger("palegreen.asgi")


class _Frame(NamedTuple):
    data: bytes
    counts: dict[str, int]
    records: int


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
        self._waiting: deque[_Frame] = deque()  # the first one perhaps in part written
        self._size = 0  # bytes of those
        self._written = 0  # bytes of the first one
        self._unanswered: deque[_Frame] = deque()  # written, and not answered yet; without their data
        self._counts: dict[str, int] = {}
        self._connect_at = 0.0
        self._pause = _SOON
        self._due = 0.0

    def count(self, what: str) -> None:
        """Add one to a count, to be told with the next frame or a second later."""
        with self._mine():
            self._add(what)
            self._later()

    def offer(self, header: dict[str, Any], parts: list[bytes]) -> None:
        """Take a record, to be sent within milliseconds; it is dropped when too much waits already."""
        with self._mine():
            size = sum(map(len, parts)) + _HEADER
            if self._size + size > self._limit:
                self._flush()
            if self._size + size > self._limit:
                self._add(DROPPED)
            else:
                self._put(header, parts, 1)
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

    def _put(self, header: dict[str, Any], parts: list[bytes], records: int) -> None:
        data = encode({**header, "counts": self._counts} if self._counts else header, parts)
        self._waiting.append(_Frame(data, self._counts, records))
        self._counts = {}
        self._size += len(data)

    def _tell(self) -> None:
        if self._counts and not self._waiting:
            self._put({"tap": "asgi", "kind": "counts"}, [], 0)
        self._flush()

    def _flush(self) -> None:
        """Write as much as the socket takes."""
        if not self._waiting or not self._connected():
            return
        try:
            self._answers()
            while self._waiting and self._socket is not None:
                views: list[bytes | memoryview] = [frame.data for frame in islice(self._waiting, _TOGETHER)]
                views[0] = memoryview(views[0])[self._written :]
                self._wrote(self._socket.sendmsg(views, (), _FLAGS))
        except BlockingIOError:
            pass
        except OSError as failure:
            self._lose(failure)

    def _wrote(self, size: int) -> None:
        self._pause = _SOON
        self._written += size
        while self._waiting and self._written >= (whole := len(self._waiting[0].data)):
            self._size -= whole
            self._written -= whole
            self._unanswered.append(self._waiting.popleft()._replace(data=b""))

    def _connected(self) -> bool:
        if self._socket is not None:
            return True
        now = time.monotonic()
        if now < self._connect_at:
            return False
        self._connect_at = now + _AGAIN
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
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
            self._size -= len(cut.data)
            self._unanswered.append(cut)
            self._written = 0
        for frame in self._unanswered:
            for what, by in frame.counts.items():
                self._add(what, by)
            if frame.records:
                self._add(DROPPED, frame.records)
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
