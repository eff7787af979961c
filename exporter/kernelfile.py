"""The kernel's small files (/proc, cgroups, sysfs), read in one call: a file object costs more than the file."""

from __future__ import annotations

import os

_MOST = 65536


def raw(path: str | os.PathLike[str], most: int = _MOST) -> bytes:
    """The first `most` bytes of a file. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.read(descriptor, most)
    finally:
        os.close(descriptor)


def content(path: str | os.PathLike[str]) -> str:
    """The first 64 KiB of a file, with what is not UTF-8 replaced. Raises OSError."""
    return raw(path).decode("utf-8", "replace")


def started(stat: str) -> int:
    """When a process was started, in clock ticks since boot, by its `/proc/PID/stat`. Raises ValueError.

    Field 22 of proc_pid_stat(5); the second, in brackets, may hold blanks and brackets.
    """
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 20:
        raise ValueError("fewer than 22 fields")
    return int(fields[19])
