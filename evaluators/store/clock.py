"""The store's own time, by which samples grow old: a wall clock that is set wrong must not delete them."""

from __future__ import annotations

from collections.abc import Callable

LEAP = 60.0
BELIEVED_AFTER = 3600.0


class SteadyClock:
    """Epoch seconds that never go back and do not leap ahead with the wall clock at once.

    Time goes on by the steady clock and follows the wall clock while that is at most `LEAP` seconds ahead. A longer
    leap (a wrong date, or the time in which the store was closed) is believed once it has lasted `BELIEVED_AFTER`
    seconds. A wall clock that goes back is not followed: time waits for it by going on steadily.

    Args:
        start: time of the newest sample there is; None begins with the wall clock.
        wall: epoch seconds.
        steady: seconds that only go forward, such as time.monotonic.
    """

    def __init__(self, start: float | None, wall: Callable[[], float], steady: Callable[[], float]) -> None:
        self._wall = wall
        self._steady = steady
        self._now = wall() if start is None else start
        self._asked = steady()
        self._leapt: float | None = None

    def now(self) -> float:
        """The store's time, epoch seconds."""
        steady = self._steady()
        self._now += steady - self._asked
        self._asked = steady
        ahead = self._wall() - self._now
        if ahead <= LEAP:
            self._leapt = None
            self._now += max(ahead, 0.0)
        elif self._leapt is None:
            self._leapt = steady
        elif steady - self._leapt >= BELIEVED_AFTER:
            self._leapt = None
            self._now += ahead
        return self._now
