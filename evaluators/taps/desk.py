"""Where the scorer fetches its work: a unix socket on which the queue is leased batch by batch.

The scorer asks with a frame `{"records", "bytes"}`; the answer is one frame an envelope and `{"end": true}`. To ask
again settles the batch before. A connection that ends with a batch under way gives it back to the queue.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from palegreen.evaluators.taps.queue import Queue
from palegreen.inprocess.frame import Decoder, FrameError, encode

_WAIT = 1.0  # seconds until an empty answer, so that the scorer can tell that it lives


class Desk:
    """Serves one scorer at a time; a new connection takes over from one before, which is then dead or hung."""

    def __init__(self, queue: Queue, path: Path) -> None:
        self._queue = queue
        self._path = path
        self._server: asyncio.Server | None = None
        self._current: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to answer."""
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def stop(self) -> None:
        """Answer nobody any more; what was not settled counts as dropped."""
        if self._server is not None:
            self._server.close()
        await self._dismiss()
        self._queue.abandon()

    async def _dismiss(self) -> None:
        if self._current is not None:
            self._current.cancel()
            await asyncio.wait([self._current])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._dismiss()
        self._current = asyncio.current_task()
        requests = Decoder()
        try:
            while data := await reader.read(4096):
                for wanted, _ in requests.feed(data):
                    self._queue.settle()
                    await self._answer(writer, int(wanted["records"]), int(wanted["bytes"]))
        except (OSError, FrameError, asyncio.CancelledError):
            pass  # asyncio logs a handler that ends by being cancelled
        finally:
            self._current = None
            self._queue.lost()
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, records: int, size: int) -> None:
        for frame in await self._queue.lease(records, size, _WAIT):
            writer.write(frame)
        writer.write(encode({"end": True}))
        await writer.drain()
