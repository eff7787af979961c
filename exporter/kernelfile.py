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
    return int(_fields(stat)[19])


def parent(stat: str) -> int:
    """The pid of a process' parent, field 4 of its `/proc/PID/stat`; 0 for none. Raises ValueError."""
    return int(_fields(stat)[1])


def _fields(stat: str) -> list[str]:
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 20:
        raise ValueError("fewer than 22 fields")
    return fields
