"""Recorded samples from a file of JSON lines, read once or followed as it grows and is rotated.

Nothing is dropped: where there is no room, reading waits. The file may be renamed and made anew, cut and written from
the start (copytruncate), or appear later. Lines that were read are not read again by a process that is started
later, where there is a position file.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import stat
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path

from palegreen.evaluators.envelope import Envelope
from palegreen.runtime.tally import Tally
from palegreen.runtime.yamlfile import ConfigError

MAX_LINE = 16 << 20
"""Longest line, in bytes; a longer one is skipped and counted."""

TAP = "file"

_CHUNK = 64 << 10  # a turn of the event loop, which proxies too
_TAIL = 64
_BOM = b"\xef\xbb\xbf"
_SAVE_SECONDS = 1.0

_log = logging.getLogger(__name__)


@dataclass
class _Position:
    """How far lines were handed over: `offset` is where the next one begins, `line` their number.

    `tail` is a digest of what stands before it, to tell whether it is still the same file.
    """

    inode: int = 0
    offset: int = 0
    line: int = 0
    tail: str = ""


class FileTap:
    """Reads `path` and hands each line to `put_when_there_is_room`, which returns when it was taken.

    Args:
        path: JSON lines.
        follow: keep reading; else the file is read once from its start, and `run` returns.
        put_when_there_is_room: awaited for each envelope; waiting is how a full queue slows the reading.
        tally: counts lines, and those that are too long.
        position: file that keeps how far was read, for a process that is started again; None keeps nothing.
        poll: seconds between two looks at a file that does not grow.
    """

    def __init__(
        self,
        path: Path,
        follow: bool,
        put_when_there_is_room: Callable[[Envelope], Awaitable[object]],
        tally: Tally,
        *,
        position: Path | None = None,
        poll: float = 0.5,
    ) -> None:
        self._path = path
        self._poll = poll
        self._follow = follow
        self._put = put_when_there_is_room
        self._tally = tally
        self._position = position if follow else None
        self._fd: int | None = None
        self._at = _Position()
        self._read = 0  # offset up to which the file was read
        self._tail = b""  # the bytes before it
        self._partial = bytearray()
        self._skipping = False
        self._complaint = ""
        self._saved = 0.0

    async def run(self) -> None:
        """Read until the end, or for ever if the file is followed.

        Raises:
            palegreen.runtime.yamlfile.ConfigError: the file cannot be read, and is not followed.
        """
        try:
            while True:
                if self._fd is None and not await asyncio.to_thread(self._open):
                    if not self._follow:
                        raise ConfigError(f"file: {self._complaint}")
                    await asyncio.sleep(self._poll)
                    continue
                await self._read_to_end()
                if not self._follow:
                    await self._last_line()
                    return
                if await asyncio.to_thread(self._replaced):
                    await self._read_to_end()  # what was written between the end and the renaming
                    await self._last_line()
                    self._close()
                else:
                    await self._save()
                    await asyncio.sleep(self._poll)
        finally:
            self._write_position()
            self._close()

    def _open(self) -> bool:
        """Open the file at the position that was kept, if it is still the same file; whether that worked."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode):
                os.close(fd)
                raise OSError(0, "not a regular file")
        except OSError as error:
            complaint = f"{self._path}: {error.strerror}"
            if complaint != self._complaint and self._follow:
                _log.warning("waiting for %s", complaint)
            self._complaint = complaint
            return False
        self._complaint, self._fd = "", fd
        self._restart(about.st_ino)
        kept = self._kept()
        tail = os.pread(fd, size := min(_TAIL, kept.offset), kept.offset - size)
        if kept.inode == about.st_ino and kept.tail == _digest(tail):
            self._at, self._read, self._tail = kept, kept.offset, tail
        return True

    async def _read_to_end(self) -> None:
        while chunk := await asyncio.to_thread(self._chunk):
            await self._take(chunk)
            await self._save()

    def _chunk(self) -> bytes:
        """What comes next, empty at the end. A file that was cut or written anew is read from its start."""
        assert self._fd is not None  # noqa: S101
        if os.pread(self._fd, len(self._tail), self._read - len(self._tail)) != self._tail:
            self._restart(self._at.inode)
        chunk = os.pread(self._fd, _CHUNK, self._read)
        self._read += len(chunk)
        self._tail = (self._tail + chunk)[-_TAIL:]
        return chunk

    async def _take(self, chunk: bytes) -> None:
        *whole, rest = chunk.split(b"\n")
        end = self._read - len(chunk)
        for piece in whole:
            self._partial += piece
            await self._line()
            end += len(piece) + 1
            self._at.offset = end
        self._partial += rest
        if len(self._partial) > MAX_LINE:
            self._skipping = True
            self._partial.clear()

    async def _line(self) -> None:
        """Hand over the line that is whole now."""
        line, self._partial = bytes(self._partial), bytearray()
        skipped, self._skipping = self._skipping or len(line) > MAX_LINE, False
        self._at.line += 1
        if self._at.line == 1:
            line = line.removeprefix(_BOM)
        line = line.rstrip(b"\r")
        if skipped:
            self._tally.count("palegreen_tap_received_total", TAP)
            self._tally.count("palegreen_tap_dropped_total", TAP, "too_large")
            _log.warning("%s: line %d is longer than %d bytes and was skipped", self._path, self._at.line, MAX_LINE)
        elif line.strip():
            self._tally.count("palegreen_tap_received_total", TAP)
            meta = {
                "tap": TAP,
                "kind": "jsonl",
                "time": time.time(),
                "sampled": "rate",
                "file": self._path.name,
                "line": self._at.line,
            }
            await self._put(Envelope(meta, [line]))

    async def _last_line(self) -> None:
        """A line at the end of a file that will not grow any more needs no newline."""
        if self._partial or self._skipping:
            await self._line()

    def _replaced(self) -> bool:
        """Whether another file stands at the path now. While there is none, the old one may still be written."""
        try:
            return self._path.stat().st_ino != self._at.inode
        except OSError:
            return False

    def _restart(self, inode: int) -> None:
        self._at = _Position(inode)
        self._read, self._tail = 0, b""
        self._partial.clear()
        self._skipping = False

    def _kept(self) -> _Position:
        if self._position is not None:
            with contextlib.suppress(OSError, ValueError, TypeError):
                kept = _Position(**json.loads(self._position.read_bytes()))
                if min(kept.inode, kept.offset, kept.line) >= 0:
                    return kept
        return _Position()

    async def _save(self) -> None:
        if self._position is not None and time.monotonic() >= self._saved + _SAVE_SECONDS:
            self._saved = time.monotonic()
            await asyncio.to_thread(self._write_position)

    def _write_position(self) -> None:
        if self._position is None or self._fd is None:
            return
        try:
            tail = os.pread(self._fd, size := min(_TAIL, self._at.offset), self._at.offset - size)
            text = json.dumps(asdict(replace(self._at, tail=_digest(tail))))
            fresh = self._position.with_name(self._position.name + ".new")
            fresh.write_text(text, encoding="ascii")
            fresh.replace(self._position)
        except OSError as error:
            _log.warning("position not kept: %s: %s", self._position, error.strerror)

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _digest(tail: bytes) -> str:
    return blake2b(tail, digest_size=8).hexdigest()
