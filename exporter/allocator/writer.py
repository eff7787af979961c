"""What the kernel says of who wrote a record: the holder of its lock, the age of the file, the age of the process.

A POSIX lock belongs to a process and goes when the process does (fcntl(2)), and F_GETLK names its holder in the pid
namespace of whoever asks. A lock can outlive the process it names where that shared its open files with another
(CLONE_FILES); by then the pid may be somebody else's, which began after the file.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import time
from pathlib import Path

from palegreen.exporter.kernelfile import content, started

_FLOCK = struct.Struct("@hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, pid
_AT_EMPTY_PATH = 0x1000
_STATX_BTIME = 0x800
_STATX_SIZE = 256
_BTIME_AT = 80  # struct statx: stx_btime, seconds (s64) and nanoseconds (u32)
_ROUNDING = 0.1  # seconds: /proc counts in hundredths, file systems in timer ticks
_libc = ctypes.CDLL(None)


class HiddenWriterError(Exception):
    """The holder of the lock is in another pid namespace, so the kernel does not name it."""


class OddLockError(Exception):
    """There is a lock, but not one that names a process as its only writer."""


def holder(descriptor: int, start: int = 0, length: int = 0) -> int | None:
    """Pid of the process that holds a write lock in a range of the file, by default all of it; None if nobody does.

    Raises the errors above.
    """
    asked = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, start, length, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    if kind == fcntl.F_UNLCK:
        return None
    if kind != fcntl.F_WRLCK or pid < 0:
        raise OddLockError
    if pid == 0:
        raise HiddenWriterError
    return int(pid)


def born(descriptor: int) -> float | None:
    """When the file was made, in Unix seconds; None where the file system does not keep it, as old kernels' tmpfs."""
    buffer = ctypes.create_string_buffer(_STATX_SIZE)
    if not hasattr(_libc, "statx") or _libc.statx(descriptor, b"", _AT_EMPTY_PATH, _STATX_BTIME, buffer):
        return None
    (mask,) = struct.unpack_from("=I", buffer)
    seconds, nanoseconds = struct.unpack_from("=qI", buffer, _BTIME_AT)
    return seconds + nanoseconds / 1e9 if mask & _STATX_BTIME else None


def began(pid: int, proc: Path) -> float | None:
    """When the process was started, in Unix seconds; None if there is none."""
    try:
        ticks = started(content(proc / str(pid) / "stat"))
    except (OSError, ValueError):
        return None
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return boot + ticks / os.sysconf("SC_CLK_TCK")


def wrote(pid: int, descriptor: int, proc: Path) -> bool:
    """Whether the process that has this pid now can be the one that made the file."""
    start, made = began(pid, proc), born(descriptor)
    return start is not None and (made is None or made >= start - _ROUNDING)
