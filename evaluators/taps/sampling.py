"""Which exchanges are held to be scored: decided when they begin, before any of their bytes is kept."""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, NamedTuple

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.sample import Sampled

Reason = Literal["rate", "session", "budget", "canary"]

MAX_SESSIONS = 65_536


class Decision(NamedTuple):
    """Whether an exchange is scored, and as what; `reason` says why one is not."""

    sampled: Sampled | None
    reason: Reason | None = None


KEPT = Decision("kept")
AT_RATE = Decision("rate")


class Sampler:
    """A rate, then at most one a session and interval, then a budget a second; tagged ones always.

    An exchange that a later rule refuses does not use up what an earlier one counts. Sessions are remembered by their
    hash, at most MAX_SESSIONS: beyond that the oldest is forgotten and may be sampled again before its time.

    Args:
        rate: share of exchanges, 0 to 1.
        session_interval: seconds.
        per_second: most exchanges a second; a second's worth may come at once. As many errors again.
        keep_errors: whether errors are scored whatever the rate; what sees the error asks.
        clock: monotonic seconds.
        draw: uniform in [0, 1).
    """

    def __init__(
        self,
        rate: float = 1.0,
        *,
        session_interval: float | None = None,
        per_second: float | None = None,
        keep_errors: bool = True,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._keep_errors = keep_errors
        self._rate = rate
        self._interval = session_interval
        self._clock = clock
        self._draw = draw
        self._sessions: OrderedDict[int, float] = OrderedDict()  # oldest first
        self._budget, self._errors = _Budget(per_second, clock()), _Budget(per_second, clock())

    @classmethod
    def of(cls, config: EvaluateConfig) -> Sampler:
        """As configured."""
        return cls(
            config.sample_rate,
            session_interval=config.session_interval,
            per_second=config.samples_per_second,
            keep_errors=config.keep_errors,
        )

    def decide(self, session: str = "", *, tagged: bool = False, failed: bool = False) -> Decision:
        """About one exchange; an empty session is none, `tagged` means that its sender wants it scored.

        `failed`, where that is known already, means that it is an error.
        """
        if tagged:
            return KEPT
        decision = self._at_rate(session)
        return KEPT if decision.sampled is None and failed and self.keeps_error() else decision

    def keeps_error(self) -> bool:
        """Whether an error that the rate has left out is scored all the same: within a budget of its own."""
        return self._keep_errors and self._errors.take(self._clock())

    def _at_rate(self, session: str) -> Decision:
        if self._draw() >= self._rate:
            return Decision(None, "rate")
        now = self._clock()
        if self._was_sampled(session, now):
            return Decision(None, "session")
        if not self._budget.take(now):
            return Decision(None, "budget")
        if session and self._interval is not None:
            self._sessions[hash(session)] = now
            if len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)
        return AT_RATE

    def _was_sampled(self, session: str, now: float) -> bool:
        if not session or self._interval is None:
            return False
        while self._sessions:  # those whose interval is over
            oldest, sampled = next(iter(self._sessions.items()))
            if now - sampled < self._interval:
                break
            del self._sessions[oldest]
        return hash(session) in self._sessions


class _Budget:
    """So many a second; a second's worth may come at once. None is without limit."""

    def __init__(self, per_second: float | None, now: float) -> None:
        self._per_second = per_second
        self._tokens = self._burst = max(1.0, per_second or 0.0)
        self._filled = now

    def take(self, now: float) -> bool:
        """Whether there is one left, which is taken."""
        if self._per_second is None:
            return True
        gained = max(0.0, now - self._filled) * self._per_second
        self._filled = now
        self._tokens = min(self._burst, self._tokens + gained)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
