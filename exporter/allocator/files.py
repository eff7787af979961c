"""The files of a folder and, of each, whether it is believed: only about the process that holds its record's lock.

The folder is written by others. Nothing but regular files is opened for reading, none is read further than its limit,
and no more of them than a fixed number; the daemon itself writes nothing there.
"""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from palegreen.exporter.allocator.record import Record, RecordError, parsed, unframed
from palegreen.exporter.allocator.writer import HiddenWriterError, OddLockError, holder, wrote
from palegreen.exporter.source import SourceError
from palegreen.inprocess.recordfile import LIMIT, NAME, offset

REASONS = {
    "too_many": "more entries than are looked at",
    "name": "not named as the probe names its files",
    "type": "a link, a pipe, a device or the like",
    "unreadable": "cannot be opened or read",
    "size": f"over {LIMIT} bytes",
    "unlocked": "no process holds its lock: its writer has ended",
    "hidden": "its writer is not visible from the daemon's pid namespace (run the daemon with hostPID)",
    "lock": "locked in another way than the probe does",
    "reused_pid": "older than the process that has its writer's pid now",
    "stale": "not written for too long",
    "torn": "its record has not the lock of a writer: half a write, or somebody else's",
    "malformed": "not a record",
    "impossible": "numbers that contradict each other, or that exceed the GPU's memory",
    "gpu": "speaks of a GPU that this node does not have",
    "second": "a further file of a process that has a newer one",
}

_FRESH = 10.0  # seconds since the last write; the probe writes once a second
_IN_ROOT = 1024  # entries of the folder itself
_IN_FOLDER = 64  # entries of each folder in it
_FILES = 1024  # opened in one reading


@dataclass(frozen=True, slots=True)
class Believed:
    """A record and the process that wrote it; `written` is in Unix seconds."""

    pid: int
    record: Record
    written: float


class _RefusedError(Exception):
    """Why a file is not believed."""


class Files:
    """Reads `directory` and the folders in it, one level deep. `clock` gives Unix seconds."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time, proc: Path = Path("/proc")) -> None:
        self._directory = directory
        self._clock = clock
        self._proc = proc

    def read(self) -> tuple[list[Believed], Counter[str]]:
        """What is believed, one record a process, and how many files were refused, by reason (`REASONS`).

        Raises SourceError when there is no such folder.
        """
        refused: Counter[str] = Counter()
        newest: dict[int, Believed] = {}
        opened = 0
        for folder, name in self._entries(refused):
            opened += 1
            if opened > _FILES:
                refused["too_many"] += 1
                break
            try:
                found = self._believed(folder, name)
            except _RefusedError as refusal:
                refused[str(refusal)] += 1
                continue
            if found.pid in newest:
                refused["second"] += 1
            if found.pid not in newest or found.written > newest[found.pid].written:
                newest[found.pid] = found
        return list(newest.values()), refused

    def _entries(self, refused: Counter[str]) -> Iterator[tuple[int, str]]:
        """Descriptor of the folder and name, of whatever is named like the probe's files."""
        try:
            root = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as failure:
            raise SourceError(f"allocator_dir: {self._directory}: {failure.strerror}") from None
        try:
            folders = []
            for entry in _listed(root, _IN_ROOT, refused):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif NAME.fullmatch(entry.name):
                    yield root, entry.name
                else:
                    refused["name"] += 1
            for folder in folders:
                yield from self._inside(root, folder, refused)
        finally:
            os.close(root)

    def _inside(self, root: int, folder: str, refused: Counter[str]) -> Iterator[tuple[int, str]]:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            inner = os.open(folder, flags, dir_fd=root)
        except OSError:
            refused["unreadable"] += 1
            return
        try:
            for entry in _listed(inner, _IN_FOLDER, refused):
                if NAME.fullmatch(entry.name):
                    yield inner, entry.name
                else:
                    refused["name"] += 1
        finally:
            os.close(inner)

    def _believed(self, folder: int, name: str) -> Believed:
        """What the file says; raises _RefusedError. It is looked at before it is opened: opening a device can act."""
        try:
            looked = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except OSError:
            raise _RefusedError("unreadable") from None
        try:
            if not stat.S_ISREG(os.fstat(looked).st_mode):
                raise _RefusedError("type")
            try:
                opened = os.open(f"/proc/self/fd/{looked}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                raise _RefusedError("unreadable") from None
        finally:
            os.close(looked)
        try:
            return self._read(opened)
        except OSError:
            raise _RefusedError("unreadable") from None
        finally:
            os.close(opened)

    def _read(self, descriptor: int) -> Believed:
        found = os.fstat(descriptor)
        if found.st_size > LIMIT:
            raise _RefusedError("size")
        try:
            pid, body = self._attested(descriptor)
            if not wrote(pid, descriptor, self._proc):
                raise _RefusedError("reused_pid")
            if abs(self._clock() - found.st_mtime) > _FRESH:
                raise _RefusedError("stale")
            return Believed(pid, parsed(body), found.st_mtime)
        except HiddenWriterError:
            raise _RefusedError("hidden") from None
        except OddLockError:
            raise _RefusedError("lock") from None
        except RecordError as refusal:
            raise _RefusedError("impossible" if refusal.impossible else "malformed") from None

    def _attested(self, descriptor: int) -> tuple[int, bytes]:
        """Whoever holds the lock of the record in the file, and the record; the first look may meet a write."""
        if holder(descriptor) is None:
            raise _RefusedError("unlocked")
        for _ in range(2):
            body = unframed(os.pread(descriptor, LIMIT, 0))
            pid = holder(descriptor, offset(body), 1)
            if pid is not None:
                return pid, body
        raise _RefusedError("torn")


def _listed(folder: int, limit: int, refused: Counter[str]) -> Iterator[os.DirEntry[str]]:
    """Entries of an open folder up to a limit; what lies behind it is counted once, since counting it is reading it."""
    with suppress(OSError), os.scandir(folder) as entries:
        for number, entry in enumerate(entries):
            if number == limit:
                refused["too_many"] += 1
                return
            yield entry
