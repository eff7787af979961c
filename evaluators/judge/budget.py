"""How often the judge may be asked."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

_HOUR = 3600.0


class Budget:
    """At most `per_hour` in any hour; those in the background evenly spread. `clock` gives seconds. For one thread."""

    def __init__(self, per_hour: int, background: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._spent: deque[float] = deque(maxlen=per_hour)
        self._pause = _HOUR / background if background else float("inf")
        self._background_at = -float("inf")
        self._clock = clock

    def is_due(self) -> bool:
        """Whether it is time for one in the background."""
        return self._pause < float("inf") and self._clock() - self._background_at >= self._pause

    def take(self, background: bool) -> bool:
        """Spend one; False if there is none left."""
        now = self._clock()
        if len(self._spent) == self._spent.maxlen and now - self._spent[0] < _HOUR:
            return False
        self._spent.append(now)
        if background:
            self._background_at = now
        return True
