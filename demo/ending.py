"""Ctrl-C and SIGTERM end the demo alike, in order, whatever it is at."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


class Ending:
    """Whether somebody asked for the end."""

    def __init__(self) -> None:
        self.asked = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if the end was asked for, wherever the first one may have got lost."""
        if self.asked:
            raise KeyboardInterrupt

    def _hear(self, _number: int, _frame: object) -> None:
        # Python drops what is raised in a __del__ or a callback, so the flag counts; raised once, it ends a wait. A
        # second Ctrl-C must not interrupt the stopping.
        if not self.asked:
            self.asked = True
            raise KeyboardInterrupt


@contextlib.contextmanager
def ending() -> Iterator[Ending]:
    """Hear SIGINT and SIGTERM while the block runs: the first raises KeyboardInterrupt, and the flag stays."""
    asked = Ending()
    before = {number: signal.signal(number, asked._hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
