"""Integrals and extremes of sampled signals: what makes a rate right at any scrape interval."""

from __future__ import annotations

from collections import deque

_MINUTE = 60
_LONGEST = 2.5  # seconds; nvml.h documents sample periods of 1/6 to 1 s, so a longer step is a hole


class Integral:
    """The integral over time of a signal that is sampled. A sample holds for the time since the one before it.

    `total` is in the signal's unit times seconds, `covered` the seconds it is taken over, `unseen` those that no sample
    covers.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self.covered = 0.0
        self.unseen = 0.0
        self.latest: float | None = None
        self._at: float | None = None

    def add(self, at: float, value: float) -> None:
        """One sample; `at` is in seconds of any one clock. What is not newer than the last one is ignored."""
        elapsed = at - self._at if self._at is not None else 0.0
        if elapsed < -_LONGEST:  # the clock was set back: from here on
            self._at, self.latest = at, value
            return
        if elapsed < 0 or (elapsed == 0 and self._at is not None):
            return
        if elapsed > _LONGEST:
            self.unseen += elapsed
        else:
            self.total += value * elapsed
            self.covered += elapsed
        self._at, self.latest = at, value


class TrailingMinute:
    """Smallest and largest value of the last 60 s, and the mean time between samples; kept by the second."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, float, float, int]] = deque()

    def add(self, at: float, value: float) -> None:
        """One sample; `at` in seconds. One of an earlier second than the last is ignored: it has been seen."""
        second = int(at)
        if self._seconds and second < self._seconds[-1][0]:
            if self._seconds[-1][0] - second <= _MINUTE:
                return
            self._seconds.clear()  # the clock was set back
        if self._seconds and self._seconds[-1][0] == second:
            _, low, high, count = self._seconds[-1]
            self._seconds[-1] = (second, min(low, value), max(high, value), count + 1)
        else:
            self._seconds.append((second, value, value, 1))
        while self._seconds[0][0] <= second - _MINUTE:
            self._seconds.popleft()

    def extremes(self) -> tuple[float, float] | None:
        """Smallest and largest value, None before the first."""
        if not self._seconds:
            return None
        return min(low for _, low, _, _ in self._seconds), max(high for _, _, high, _ in self._seconds)

    def period(self) -> float | None:
        """Mean seconds between the samples of whole seconds, None while too few are known."""
        whole = list(self._seconds)[:-1]
        samples = sum(count for _, _, _, count in whole[1:])
        return (whole[-1][0] - whole[0][0]) / samples if len(whole) > 3 and samples else None
