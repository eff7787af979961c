"""The scorer's counts: what it found, as the metrics of the groups quality and evaluator."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.sample import Sample, Step
from palegreen.evaluators.sessions import Ended, Signals
from palegreen.evaluators.store.scored import Scored
from palegreen.runtime.exposition import Collected, Exemplar, Readings
from palegreen.runtime.tally import Tally

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
BUCKETS = {
    "palegreen_quality_score": (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99),
    "palegreen_session_turns": (1, 2, 3, 5, 8, 13, 21, 34),
    "palegreen_chain_step_duration_seconds": SECONDS,
    "palegreen_retrieval_duration_seconds": SECONDS,
    "palegreen_response_time_to_first_token_seconds": SECONDS,
    "palegreen_response_duration_seconds": SECONDS,
}
_FREE = frozenset({"model", "endpoint", "instance_id", "name", "index"})
_SERVED = 1000
Labels = tuple[str, str, str, str, str]


class Ledger:
    """Counts of one scorer."""

    def __init__(self, config: EvaluateConfig) -> None:
        self._config = config
        self._tally = Tally((), BUCKETS, free=_FREE)
        self._lag: float | None = None
        self._served: set[str] = set()  # models of responses that were no errors
        for tap in config.taps():  # there from the start, so that increase() sees the first
            for reason in ("undecodable", "scorer_error"):
                self._tally.count("palegreen_tap_dropped_total", *config.common(), tap, reason, by=0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is done inside."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._tally.count("palegreen_evaluator_scoring_seconds_total", name, by=time.perf_counter() - began)

    def sample(self, scored: Scored, signals: Signals) -> None:
        """One sample that was checked, and what it says of its session."""
        sample, count = scored.sample, self._tally.count
        labels = self._labels(sample)
        count("palegreen_quality_samples_total", *labels, sample.tap, sample.sampled, scored.result)
        fair = sample.sampled == "rate"
        name = "palegreen_quality_checks_total" if fair else "palegreen_quality_kept_checks_total"
        for check, outcome in scored.outcomes.items():
            count(name, *labels, check, outcome.result if outcome is not None else "skipped")
            if fair and outcome is not None and outcome.score is not None:
                self._observe("palegreen_quality_score", outcome.score, sample, *labels, check)
        served = scored.outcomes.get("served_model")
        if served is not None and served.passed is False:
            count("palegreen_requested_model_mismatch_total", *labels)
        if sample.ended == "client_abort":
            count("palegreen_feedback_total", *labels, "client_abort")
        if fair:
            self._usage(sample, labels)
            self._durations(sample, labels)
        if signals.repeated_question:
            count("palegreen_feedback_total", *labels, "repeated_question")
        if signals.repeated_tool_calls:
            count("palegreen_session_repeated_tool_calls_total", *labels, by=signals.repeated_tool_calls)
        if signals.tool_errors:
            count("palegreen_session_tool_errors_total", *labels, by=signals.tool_errors)

    def labels(self, sample: Sample) -> Labels:
        """Labels of a sample's series, as they are shown."""
        model, endpoint, replica, namespace, pod = self._tally.shown(
            "palegreen_drift_samples_total", *self._labels(sample)
        )
        return model, endpoint, replica, namespace, pod

    def session_ended(self, ended: Ended) -> None:
        """A session is over."""
        _, *about = self._config.common()
        self._tally.observe("palegreen_session_turns", ended.turns, ended.model, ended.endpoint, *about)

    def step(self, step: Step) -> None:
        """One link of a chain."""
        labels = (step.model or self._config.model, *self._config.common())
        exemplar = Exemplar(step.trace_id, step.seconds, step.time or time.time()) if step.trace_id else None
        self._tally.observe(
            "palegreen_chain_step_duration_seconds", step.seconds, *labels, step.kind, step.name, exemplar=exemplar
        )
        if step.kind == "retrieval":
            self._tally.observe(
                "palegreen_retrieval_duration_seconds", step.seconds, *labels, step.name, "span", exemplar=exemplar
            )

    def feedback(self, kind: str, about: tuple[str, str, str] | None) -> None:
        """A user's word on a response; `about` is its model, endpoint and replica where it is known."""
        endpoint, replica, namespace, pod = self._config.common()
        model, endpoint, replica = about or (self._config.model, endpoint, replica)
        self._tally.count("palegreen_feedback_total", model, endpoint, replica, namespace, pod, kind)

    def waited(self, seconds: float) -> None:
        """How long the record that was scored last had waited."""
        self._lag = seconds

    def lost(self, tap: str, reason: str) -> None:
        """A record that could not be scored."""
        self._tally.count("palegreen_tap_dropped_total", *self._config.common(), tap, reason)

    def unsampled(self, tap: str, reason: str) -> None:
        """A record that was not to be scored."""
        self._tally.count("palegreen_tap_unsampled_total", *self._config.common(), tap, reason)

    def readings(self, now: Collected) -> Readings:
        """Everything so far, on top of what holds `now`."""
        if self._lag is not None:
            now.add("palegreen_evaluator_lag_seconds", self._lag)
        now.include(self._tally.readings())
        return now.readings()

    def _labels(self, sample: Sample) -> Labels:
        """Labels of a sample's series. What a client asked for and did not get is no model of ours."""
        namespace, pod = self._config.namespace, self._config.pod
        model = sample.model
        if failed(sample) and model not in self._served:
            model = self._config.model
        elif len(self._served) < _SERVED:
            self._served.add(model)
        return model, sample.endpoint, sample.replica, namespace, pod

    def _usage(self, sample: Sample, labels: Labels) -> None:
        for direction, tokens in (
            ("input", sample.prompt_tokens),
            ("output", sample.completion_tokens),
            ("cached", sample.cached_tokens),
            ("reasoning", sample.reasoning_tokens),
        ):
            if tokens:
                self._tally.count("palegreen_quality_tokens_total", *labels, direction, by=tokens)

    def _durations(self, sample: Sample, labels: Labels) -> None:
        for name, seconds in (
            ("palegreen_response_time_to_first_token_seconds", sample.ttft_seconds),
            ("palegreen_response_duration_seconds", sample.duration_seconds),
        ):
            if seconds is not None:
                self._observe(name, seconds, sample, *labels)

    def _observe(self, name: str, value: float, sample: Sample, *labels: str) -> None:
        exemplar = Exemplar(sample.trace_id, value, sample.time or time.time()) if sample.trace_id else None
        self._tally.observe(name, value, *labels, exemplar=exemplar)


def failed(sample: Sample) -> bool:
    """Whether a sample is an error instead of a response."""
    return sample.ended == "error" or (sample.status or 0) >= 400
