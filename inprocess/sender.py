"""Hands records over on a unix socket without ever waiting: what does not fit is dropped and counted.

The reader answers each frame with one byte, so that a frame lost in the kernel with a reader that died is known. The
counts travel in the frames' headers as increases since the last frame that gets through, under `"counts"`; a frame of
kind `counts` has nothing else.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import socket
import time
import weakref
from collections import deque
from threading import Lock
from typing import Any, NamedTuple

from palegreen.inprocess.frame import encode

DROPPED = "dropped"

_LIMIT = 4 << 20  # bytes that wait for the socket
_HEADER = 1024  # bytes of a frame beside its parts, about
_AGAIN = 1.0  # seconds between two attempts to connect, and between two looks at a reader that does not read
_SOON = 0.005  # seconds after which the rest of a frame is tried again
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
        atexit.register(_at_exit, weakref.ref(self))

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
        """Send a record, now or when there is room; it is dropped when too much waits already."""
        with self._mine():
            self._flush()
            if self._size + sum(map(len, parts)) + _HEADER > self._limit:
                self._add(DROPPED)
            else:
                self._put(header, parts, 1)
                self._flush()
            self._later()

    def tell(self) -> None:
        """Send the counts now, if there is room."""
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
                data = self._waiting[0].data
                self._written += self._socket.send(memoryview(data)[self._written :], _FLAGS)
                self._pause = _SOON
                if self._written == len(data):
                    self._size -= len(data)
                    self._written = 0
                    self._unanswered.append(self._waiting.popleft()._replace(data=b""))
        except BlockingIOError:
            pass
        except OSError as failure:
            self._lose(failure)

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
        """Have somebody look again while something waits, where there is an event loop."""
        if not self._waiting and not self._counts:
            return
        now = time.monotonic()
        pause = self._pause if self._waiting and self._socket is not None else _AGAIN
        if now < self._due <= now + pause:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # another kind of loop: the next record looks
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


def _at_exit(found: weakref.ref[Sender]) -> None:
    sender = found()
    if sender is not None:
        sender.tell()
