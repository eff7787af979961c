"""A trouble that lasts is logged again and again, but seldom."""

from __future__ import annotations

import time
from collections.abc import Callable

AGAIN = 60.0
"""Seconds until a trouble of the same kind is logged again."""


class Seldom:
    """Remembers when what was said last. `clock` gives seconds that only go forward."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, float] = {}

    def due(self, about: str) -> bool:
        """Whether to say it now; if so, it counts as said."""
        now = self._clock()
        if now - self._said.get(about, -AGAIN) < AGAIN:
            return False
        self._said[about] = now
        return True
