"""Outcomes of checks out by OTLP: one event `gen_ai.evaluation.result` each, in the trace of what it is about."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from threading import Event, Thread
from typing import Any, NamedTuple

import structlog

from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.sample import Sample
from palegreen.runtime.otlp.config import OtlpExportConfig
from palegreen.runtime.otlp.exporting import Exporting
from palegreen.runtime.otlp.names import EVALUATION_EVENT, Conventions

log = structlog.get_logger()

_LIMIT = 4096  # events that wait
_BATCH = 512
_EVERY = 1.0  # seconds
_PATIENCE = 3.0  # seconds that the end waits for what is still to be sent


class _Event(NamedTuple):
    """One outcome, before the SDK's objects are made of it, which is left to the thread."""

    time: int  # epoch nanoseconds
    check: str
    outcome: Outcome
    response_id: str
    model: str
    sampled: str
    trace_id: str


class EvaluationEvents:
    """Sends outcomes from a thread of its own; `emit` never waits, and what does not fit counts as failed.

    Raises ConfigError, one line, where the extra `otel` is missing.
    """

    def __init__(self, config: OtlpExportConfig, resource: Mapping[str, str]) -> None:
        self._conventions = Conventions(config.semantic_conventions)
        self._exporting = Exporting(config, "events")  # first: it says it when the extra is missing
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        self._resource = Resource(dict(resource), self._conventions.schema_url)
        self._scope = InstrumentationScope("palegreen", schema_url=self._conventions.schema_url)
        self._waiting: deque[_Event] = deque()
        self._wake = Event()
        self._stopped = False
        self._thread = Thread(target=self._run, name="otlp events", daemon=True)
        self._thread.start()

    def emit(self, sample: Sample, outcomes: Mapping[str, Outcome]) -> None:
        """Have the outcomes of checks, by name, sent. Nothing of the sample's text is."""
        now = time.time_ns()
        for check, outcome in outcomes.items():
            if len(self._waiting) >= _LIMIT or self._stopped:
                self._exporting.failed(1, "too many wait to be sent")
                continue
            self._waiting.append(_Event(now, check, outcome, sample.id, sample.model, sample.sampled, sample.trace_id))
        if len(self._waiting) >= _BATCH:
            self._wake.set()

    def counts(self) -> dict[str, int]:
        """Events by result, `ok` or `failed`."""
        return self._exporting.counts()

    def close(self) -> None:
        """Send what waits, for a few seconds at most; the rest counts as failed."""
        self._stopped = True
        self._wake.set()
        self._thread.join(_PATIENCE)
        self._exporting.close()
        self._thread.join(_PATIENCE)
        if self._waiting:
            self._exporting.failed(len(self._waiting), "the end came first")

    def _run(self) -> None:
        while not self._stopped:
            self._wake.wait(_EVERY)
            self._wake.clear()
            try:
                self._drain()
            except Exception:
                log.exception("otlp.defect", signal="events", effect="a batch is lost")

    def _drain(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while self._waiting and not (self._stopped and time.monotonic() > deadline):
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            self._exporting.send([self._record(event) for event in batch], len(batch))

    def _record(self, event: _Event) -> Any:
        from opentelemetry._logs import LogRecord
        from opentelemetry.sdk._logs import ReadableLogRecord

        passed, score, why = event.outcome
        attributes = self._conventions.attributes({
            "evaluation": event.check,
            "score": score,
            "label": None if passed is None else "pass" if passed else "fail",
            "explanation": why,
            "response_id": event.response_id,
            "response_model": event.model,
            "sampled": event.sampled,
        })  # fmt: skip
        record = LogRecord(
            timestamp=event.time, context=_context(event.trace_id), attributes=attributes, event_name=EVALUATION_EVENT
        )
        return ReadableLogRecord(record, self._resource, self._scope)


def _context(trace_id: str) -> Any:
    """The trace that the response is part of; which span of it is not known."""
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, set_span_in_context

    try:
        number = int(trace_id, 16) if len(trace_id) == 32 else 0
    except ValueError:
        number = 0
    return set_span_in_context(NonRecordingSpan(SpanContext(number, 0, is_remote=True)), Context())
