"""When a token last passed through the proxy to a user: told by the tap process, read by the probe process.

Both are on one machine, where the monotonic clock is the same for all processes.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

_TIME = struct.Struct("d")


class Passing:
    """Writes the time down, where it has changed, beside the queue's socket."""

    def __init__(self, queue: Path) -> None:
        self._path = _beside(queue)
        self._noted = 0.0

    def note(self, when: float) -> None:
        """Monotonic seconds, 0 for never."""
        if when != self._noted:
            self._noted = when
            with suppress(OSError):  # without it there is one piece of evidence less
                self._path.write_bytes(_TIME.pack(when))


def last_passed(queue: Path) -> float:
    """Monotonic seconds, 0 if none has passed."""
    try:
        return float(_TIME.unpack(_beside(queue).read_bytes())[0])
    except (OSError, struct.error):
        return 0.0


def _beside(queue: Path) -> Path:
    return queue.with_name(f"{queue.name}.passing")
