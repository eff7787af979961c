"""Forward progress: does the engine still make tokens, whatever its `/health` says?

One token is asked for again and again. An answer is progress. Where none comes in time, the engine's own counters tell
a saturated engine, which works for others, from a hung one, which works for nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from threading import Event
from typing import Literal

import structlog

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.probes.chat import Chat
from palegreen.evaluators.probes.client import AskError
from palegreen.evaluators.probes.config import CanaryConfig
from palegreen.evaluators.probes.evidence import counters, moved
from palegreen.runtime.exposition import Collected

log = structlog.get_logger()

State = Literal["progress", "saturated", "hung", "down", "loading", "unknown"]
STATES: tuple[State, ...] = ("progress", "saturated", "hung", "down", "loading", "unknown")
_BLIND = 2.5  # times `hung_after`, where nothing but the request itself could show progress


class Progress:
    """Asks for one token a round.

    Args:
        model: name to ask for; empty is the first that the engine lists.
        look: the engine's counters of tokens, or None; as `evidence.counters`.
        passing: monotonic time at which a token last passed on its way to a user, 0 if never.
        clock: monotonic seconds.
        wall: epoch seconds.
    """

    name = "progress"

    def __init__(
        self,
        config: EvaluateConfig,
        canary: CanaryConfig,
        chat: Chat,
        model: str,
        *,
        look: Callable[[Event], Mapping[str, float] | None] | None = None,
        passing: Callable[[], float] = lambda: 0.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.interval = canary.progress_interval
        self._timeout = canary.progress_timeout
        self._hung_after = canary.hung_after
        self._chat = chat
        self._model = model
        self._labels = (model, *config.common())
        self._look = look or (lambda stopped: counters(chat.replica, stopped))
        self._passing = passing
        self._clock, self._wall = clock, wall
        self._since = clock()  # the last progress, or the start
        self._seen: Mapping[str, float] | None = None  # counters when they were last to be had
        self._blind = False  # in the last round nothing but the request itself could show progress
        self._shown: tuple[State, float] | None = None  # and when there was progress, epoch seconds, 0 if never

    @property
    def state(self) -> State | None:
        """The engine's state after the last round, None before the first."""
        return self._shown[0] if self._shown is not None else None

    def run(self, stopped: Event) -> None:
        """One round."""
        began = self._clock()
        before = self._seen = self._look(stopped) or self._seen
        try:
            self._ask(stopped, self._patience(began))
        except AskError as failure:
            if failure.reason == "stopped":
                return
            after = self._look(stopped)
            working = moved(before, after) or self._passing() > began
            self._seen = after or before
            self._blind = after is None and not self._passing()
            if working:
                self._progressed()
            self._set(self._judge(failure, working), failure)
        else:
            self._blind = False
            self._progressed()
            self._set("progress", None)

    def show(self, collected: Collected) -> None:
        """Add its series."""
        shown = self._shown
        if shown is None:
            return
        state, when = shown
        for each in STATES:
            collected.add("palegreen_engine_progress", each == state, *self._labels, each)
        if when:
            collected.add("palegreen_forward_progress_timestamp_seconds", when, *self._labels)

    def _patience(self, now: float) -> float:
        """Seconds to wait for an answer. Where a busy server answers nothing else, we wait for the end of its queue."""
        return max(self._timeout, self._hung_after * _BLIND - (now - self._since)) if self._blind else self._timeout

    def _ask(self, stopped: Event, timeout: float) -> None:
        """Ask for one token; any answer is progress, also one that is not understood. Raises AskError."""
        if not self._model:
            listed = self._chat.models(timeout=self._timeout, stopped=stopped)
            self._model = listed[0] if listed else ""
        body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "temperature": 0}
        asked = body | ({"model": self._model} if self._model else {})
        self._chat.ask(asked, timeout=timeout, stopped=stopped)

    def _judge(self, failure: AskError, working: bool) -> State:
        if failure.reason == "connection":
            return "down"
        if failure.status == 503 and b"loading" in failure.body.lower():
            return "loading"
        if failure.reason == "busy":
            return "saturated" if working or failure.status == 429 else "down"
        if failure.reason == "refused" and failure.status >= 500:
            return "saturated" if working else "down"
        if failure.reason in ("refused", "malformed", "secret"):
            return "unknown"
        patience = self._hung_after * (_BLIND if self._blind else 1)
        return "hung" if not working and self._clock() - self._since >= patience else "saturated"

    def _progressed(self) -> None:
        self._since = self._clock()
        self._shown = (self.state or "progress", self._wall())

    def _set(self, state: State, failure: AskError | None) -> None:
        before, when = self._shown or (None, 0.0)
        if state != before and not (before is None and state == "progress"):
            level = log.info if state == "progress" else log.warning
            why = {} if failure is None else {"reason": failure.reason, "status": failure.status}
            level("engine.progress", state=state, before=before or "unknown", **why)
        self._shown = (state, when)
