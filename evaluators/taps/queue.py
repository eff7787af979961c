"""The bounded queue between taps and scorer: appending never waits, what does not fit is dropped and counted."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass

from palegreen.evaluators.envelope import Envelope
from palegreen.inprocess.frame import encode
from palegreen.runtime.tally import Tally


@dataclass(slots=True)
class _Entry:
    """An envelope as the frame that the scorer gets: a fifth of the memory that its header takes as a dict."""

    frame: bytes
    tap: str
    tried: bool = False
    """Whether a scorer has died while it held it."""

    @property
    def size(self) -> int:
        """Bytes held for it, about."""
        return len(self.frame) + _OVERHEAD


_OVERHEAD = 256


class Queue:
    """Envelopes in order of arrival, at most `limit` bytes of them, for one consumer in one event loop.

    What is leased counts as held until it is settled. If the consumer is lost instead, each comes back once, alone in
    its lease, so that the one record that kills scorers is found and dropped.
    """

    def __init__(self, limit: int, tally: Tally) -> None:
        self._limit = limit
        self._tally = tally
        self._waiting: deque[_Entry] = deque()
        self._leased: list[_Entry] = []
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._leased)

    def put(self, envelope: Envelope) -> None:
        """Append, or drop and count."""
        tap, size = envelope.meta["tap"], envelope.size
        if self._bytes + size > self._limit:
            self._drop(tap, "too_large" if size > self._limit else "queue_full")
            return
        entry = _Entry(encode(envelope.meta | {"queued": time.monotonic()}, envelope.parts), tap)
        self._waiting.append(entry)
        self._grow(entry.size)
        self._arrived.set()

    async def put_patiently(self, envelope: Envelope) -> None:
        """Append once the queue is at most half full: for sources that can wait, such as a file."""
        await self._room.wait()
        self.put(envelope)

    async def lease(self, records: int, size: int, wait: float) -> list[bytes]:
        """Frames of up to `records` envelopes of together about `size` bytes; none if none comes in `wait` seconds."""
        if not self._waiting:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), wait)
            except TimeoutError:
                return []
        total = 0
        while self._waiting and len(self._leased) < records and total < size:
            if self._leased and self._waiting[0].tried:
                break
            entry = self._waiting.popleft()
            self._leased.append(entry)
            total += entry.size
            if entry.tried:
                break
        return [entry.frame for entry in self._leased]

    def settle(self) -> None:
        """What is leased has been dealt with."""
        self._grow(-sum(entry.size for entry in self._leased))
        self._leased.clear()

    def lost(self) -> None:
        """The consumer is gone, with what it had leased."""
        for entry in reversed(self._leased):
            if entry.tried:
                self._grow(-entry.size)
                self._drop(entry.tap, "scorer_died")
            else:
                entry.tried = True
                self._waiting.appendleft(entry)
        self._leased.clear()

    def abandon(self) -> None:
        """Nobody will come any more: count everything as dropped."""
        for entry in [*self._leased, *self._waiting]:
            self._drop(entry.tap, "shutdown")
        self._leased.clear()
        self._waiting.clear()
        self._grow(-self._bytes)

    def _grow(self, by: int) -> None:
        self._bytes += by
        if self._bytes * 2 > self._limit:
            self._room.clear()
        else:
            self._room.set()
        self._tally.set("palegreen_tap_queue_bytes", self._bytes)
        self._tally.set("palegreen_tap_queue_records", len(self))

    def _drop(self, tap: str, reason: str) -> None:
        self._tally.count("palegreen_tap_dropped_total", tap, reason)
