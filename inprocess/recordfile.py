"""One file per process, through which it speaks to the node daemon.

The writer holds a POSIX write lock on one byte of its file, at the offset that is the digest of the record in it. The
kernel tells the daemon who holds the lock at that offset. So neither the name of a file nor its content can claim
another process, a record that somebody else put into the file is worth nothing, half a write is known as one, and a
crash gives the lock back. The lock may lie far beyond the end of the file: a range of offsets is all it is.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from hashlib import sha256

MAGIC = b"palegreen-allocator 1"
LIMIT = 65536  # bytes of a file, its first line included
NAME = re.compile(r"allocator-\d{1,10}-[0-9a-f]{16}\.json")

_ENTRIES = 1024  # looked at when dead files are cleared away
_SETTLED = 60.0  # seconds; a younger file may be one that its writer has not locked yet


def framed(body: bytes) -> bytes:
    """A record as it lies in the file: one line with its length, then the body."""
    return b"%s %d\n%s" % (MAGIC, len(body), body)


def offset(body: bytes) -> int:
    """Where the lock of a record lies: 62 bits of its SHA-256."""
    return int.from_bytes(sha256(body).digest()[:8], "big") >> 2


class RecordFile:
    """A new file of this process in `directory`. Raises OSError."""

    def __init__(self, directory: str) -> None:
        _clear(directory)
        self._path = os.path.join(directory, f"allocator-{os.getpid()}-{os.urandom(8).hex()}.json")  # noqa: PTH118
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o644)
        self._identity = _identity(self._descriptor)
        self._locked: int | None = None
        try:
            os.fchmod(self._descriptor, 0o644)  # whatever the umask: the daemon may be another user
        except OSError:
            self.close()
            raise

    def write(self, body: bytes) -> None:
        """Replace the record. Raises OSError, also when somebody closed the file behind our back.

        The new lock comes before the new record and the old one goes after it: a whole record is always locked.
        """
        record = framed(body)
        if len(record) > LIMIT:
            raise OSError(f"a record of {len(record)} bytes; allowed: {LIMIT}")
        if not self._ours():
            self._descriptor = -1
            raise OSError("the file was closed by this process")
        before, now = self._locked, offset(body)
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, now)
        os.pwrite(self._descriptor, record, 0)
        if before is not None and before != now:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, before)
        self._locked = now

    def abandon(self) -> None:
        """Let go of the file without removing it, as a child does after a fork; the parent keeps file and lock."""
        if self._ours():
            os.close(self._descriptor)
        self._descriptor = -1

    def close(self) -> None:
        """Remove the file; the lock goes with it."""
        try:
            os.unlink(self._path)  # noqa: PTH108
        except FileNotFoundError:
            pass
        finally:
            self.abandon()

    def _ours(self) -> bool:
        """Whether the descriptor is still this file: programs that close all they inherited reuse its number."""
        try:
            return self._descriptor >= 0 and _identity(self._descriptor) == self._identity
        except OSError:
            return False


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _clear(directory: str) -> None:
    """Remove files whose writers are gone, such as those of a server that crashes again and again."""
    with os.scandir(directory) as entries:
        for _, entry in zip(range(_ENTRIES), entries):  # noqa: B905 - the shorter one is meant
            if NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                try:
                    _clear_one(entry.path)
                except OSError:
                    continue  # alive, another user's, or gone already


def _clear_one(path: str) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and found.st_mtime < time.time() - _SETTLED:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises while the writer lives
            os.unlink(path)  # noqa: PTH108
    finally:
        os.close(descriptor)
