"""High-water marks: a model that swings between 2 and 40 GB does so between two looks at a dashboard."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

_MINUTE = 60.0
_MINUTES = 60


@dataclass(slots=True)
class Peak:
    """The highest of the values seen: since the first, and over the last hour in steps of a minute."""

    ever: int = 0
    _minutes: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=_MINUTES))

    def see(self, now: float, value: int) -> None:
        """One value; `now` is in seconds."""
        self.ever = max(self.ever, value)
        minute = int(now // _MINUTE)
        if self._minutes and self._minutes[-1][0] == minute:
            value = max(value, self._minutes.pop()[1])
        while self._minutes and self._minutes[0][0] <= minute - _MINUTES:
            self._minutes.popleft()
        self._minutes.append((minute, value))

    @property
    def last_hour(self) -> int:
        """The highest of the last hour, as of the latest value."""
        return max((value for _, value in self._minutes), default=0)
