"""OTLP export requests as samples and steps; content that comes in log events is joined with its span."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.sample import Observation, Sample
from palegreen.evaluators.wire import genai, telemetry
from palegreen.evaluators.wire.body import decoded
from palegreen.evaluators.wire.defaults import Defaults
from palegreen.evaluators.wire.errors import WireError
from palegreen.evaluators.wire.telemetry import Event, Span

TAP = "otlp"
MAX_BODY = 64 << 20
"""Most bytes that a compressed export request may decode to."""

_Key = tuple[str, str]


@dataclass(slots=True)
class _Call:
    """What has come of one model call. `since` is when the first of it came."""

    since: float
    span: Span | None = None
    events: list[Event] = field(default_factory=list)
    size: int = 0

    @property
    def whole(self) -> bool:
        """Whether nothing more is expected: span and choices are there, or it failed."""
        if self.span is None:
            return False
        if self.span.failed or any(event.name == genai.DETAILS for event in self.events):
            return True
        reasons = self.span.attributes.get("gen_ai.response.finish_reasons")
        choices = sum(event.name == genai.CHOICE for event in self.events)
        return choices >= max(1, len(reasons) if isinstance(reasons, list) else 1)


class Otlp:
    """Decodes export requests of traces and logs. Not thread-safe: one decoder, one thread.

    A span whose content is missing waits for its log events, and they for their span, since senders export the two
    signals apart; after `wait` seconds, or when too much waits, what is there is given.

    Args:
        defaults: for samples that carry no model; endpoint and replica are never in a span.
        wait: seconds; SDKs export logs and spans within 5 s, collectors batch them again.
        most: calls that wait at once.
        most_bytes: memory of what waits, about.
        clock: seconds, any beginning.
    """

    def __init__(
        self,
        defaults: Defaults | None = None,
        *,
        wait: float = 15.0,
        most: int = 10_000,
        most_bytes: int = 32 << 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._defaults = defaults or Defaults()
        self._wait = wait
        self._most = most
        self._most_bytes = most_bytes
        self._clock = clock
        self._calls: OrderedDict[_Key, _Call] = OrderedDict()
        self._bytes = 0
        self._done: OrderedDict[_Key, None] = OrderedDict()

    def decode(self, envelope: Envelope) -> list[Observation]:
        """Samples and steps that are known with this request (and those that have waited long enough).

        Raises:
            WireError: not an export request.
        """
        meta, content_type = envelope.meta, str(envelope.meta.get("content_type", ""))
        body = decoded(b"".join(envelope.parts), str(meta.get("content_encoding", "")), "OTLP body", limit=MAX_BODY)
        found: list[Observation] = []
        match meta.get("kind"):
            case "otlp-traces":
                spans = telemetry.spans(body, content_type)
                for span in spans:
                    found += self._of_span(span, len(body) // len(spans))
            case "otlp-logs":
                events = telemetry.events(body, content_type)
                for event in events:
                    found += self._of_event(event, len(body) // len(events))
            case kind:
                raise WireError(f"envelope of kind {kind!r}; allowed: otlp-traces, otlp-logs")
        return self._completed(found) + self.due()

    def due(self) -> list[Observation]:
        """What has waited long enough, or must go because too much waits; to be called now and then."""
        found: list[Observation] = []
        before = self._clock() - self._wait
        while self._calls and (
            next(iter(self._calls.values())).since <= before
            or len(self._calls) > self._most
            or self._bytes > self._most_bytes
        ):
            found += self._closed(next(iter(self._calls)))
        return self._completed(found)

    def _of_span(self, span: Span, size: int) -> list[Observation]:
        link, key = genai.kind(span.attributes), (span.trace_id, span.span_id)
        if link is None or key in self._done:  # exporters send again what they heard no answer to
            return []
        found: list[Observation] = [genai.step(span, link)]
        if link != "model":
            return found
        if not span.span_id:  # it can be joined with nothing
            return found + list(genai.samples(span))
        if genai.answers(span.attributes, span.events):
            held = self._calls.pop(key, None)
            self._bytes -= held.size if held else 0
            self._finish(key)
            return found + list(genai.samples(span))
        call = self._call(key, size)
        call.span = span
        return found + (self._closed(key) if call.whole else [])

    def _of_event(self, event: Event, size: int) -> list[Observation]:
        if not event.span_id:  # it can be joined with nothing
            return list(_alone([event])) if event.name == genai.DETAILS else []
        key = (event.trace_id, event.span_id)
        if key in self._done:
            return []
        call = self._call(key, size)
        call.events.append(event)
        return self._closed(key) if call.whole else []

    def _call(self, key: _Key, size: int) -> _Call:
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = _Call(self._clock())
        call.size += size
        self._bytes += size
        return call

    def _closed(self, key: _Key) -> list[Observation]:
        call = self._calls.pop(key)
        self._bytes -= call.size
        self._finish(key)
        if call.span is not None:
            return list(genai.samples(call.span, call.events))
        return list(_alone(call.events))

    def _completed(self, observations: list[Observation]) -> list[Observation]:
        """With what no span says."""
        for sample in observations:
            if isinstance(sample, Sample):
                sample.tap = TAP
                sample.model = sample.model or self._defaults.model
                sample.endpoint, sample.replica = self._defaults.endpoint, self._defaults.replica
        return observations

    def _finish(self, key: _Key) -> None:
        self._done[key] = None
        if len(self._done) > self._most:
            self._done.popitem(last=False)


def _alone(events: list[Event]) -> list[Observation]:
    """Samples of events whose span never came; none if they hold no answer."""
    first = events[0]
    attributes = {key: value for event in events for key, value in event.attributes.items()}
    failed = bool(attributes.get("error.type"))
    if not failed and not genai.answers(attributes, events):
        return []
    span = Span(first.name, first.trace_id, first.span_id, first.time, first.time, attributes, failed=failed)
    return list(genai.samples(span, events))
