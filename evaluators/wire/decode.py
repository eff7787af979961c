"""Envelopes to observations, by kind."""

from __future__ import annotations

from collections.abc import Callable

from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.sample import Observation
from palegreen.evaluators.wire import feedback, http, jsonl, litellm
from palegreen.evaluators.wire.cloudevents import CloudEvents
from palegreen.evaluators.wire.defaults import Defaults
from palegreen.evaluators.wire.errors import WireError
from palegreen.evaluators.wire.otlp import Otlp


class Decoder:
    """Decodes every kind. What comes in halves (a request and its response, a span and its events) waits in here.

    Args:
        defaults: what a record is of where it does not say so itself.
        session_header: request header that names the session.
        keep_header: header of requests that are to be scored whatever the rate.
    """

    def __init__(
        self, defaults: Defaults, session_header: str = "x-session-id", keep_header: str = "x-palegreen-keep"
    ) -> None:
        def exchange(envelope: Envelope) -> list[Observation]:
            return http.decode(envelope, defaults)

        self._otlp = Otlp(defaults)
        self._events = CloudEvents(exchange, session_header=session_header, keep_header=keep_header)
        self._lost = {"undecodable": 0, "unanswered": 0}
        self._kinds: dict[str, Callable[[Envelope], list[Observation]]] = {
            "http": exchange,
            "jsonl": lambda envelope: jsonl.decode(envelope, defaults),
            "otlp-traces": self._otlp.decode,
            "otlp-logs": self._otlp.decode,
            "cloudevent": self._events.decode,
            "litellm": lambda envelope: litellm.decode(envelope, exchange),
            "feedback": lambda envelope: [*feedback.decode(envelope)],
        }

    def decode(self, envelope: Envelope) -> list[Observation]:
        """What an envelope holds; nothing, where it holds nothing to evaluate or its other half is yet to come.

        Raises:
            WireError: one line; the record is lost and is to be counted as undecodable.
        """
        kind = str(envelope.meta.get("kind"))
        if kind not in self._kinds:
            raise WireError(f"kind {kind[:20]!r}; allowed: {', '.join(self._kinds)}")
        return self._kinds[kind](envelope)

    def due(self) -> list[Observation]:
        """What has waited long enough for its other half; to be called every second or so."""
        return [*self._otlp.due(), *self._events.due()]

    def lost(self) -> dict[str, int]:
        """Calls that came in halves and were lost since this was last asked, by reason."""
        now = {"undecodable": self._events.undecodable, "unanswered": self._events.unanswered}
        before, self._lost = self._lost, now
        return {reason: now[reason] - before[reason] for reason in now}
