"""Tokens that canaries may still take, so that they stay a small part of what a replica does."""

from __future__ import annotations

import time
from collections.abc import Callable

_HOUR = 3600.0
_BURST = 1 / 12
"""Share of an hour's tokens that may be taken at once."""


class Budget:
    """So many tokens an hour, refilled all the time."""

    def __init__(self, tokens_per_hour: float, largest: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`largest`: tokens of the largest run, which must be possible at some time."""
        self._rate = tokens_per_hour / _HOUR
        self._most = max(tokens_per_hour * _BURST, largest)
        self._clock = clock
        self._left, self._filled = self._most, clock()

    def allows(self, tokens: float) -> bool:
        """Whether so many are left."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._filled) * self._rate)
        self._filled = now
        return self._left >= tokens

    def spend(self, tokens: float) -> None:
        """So many were taken; more than were left are owed."""
        self._left -= tokens
