"""What happens to a record: decode -> redact -> embed -> check -> count, store, export."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import structlog

from palegreen.evaluators.baseline import manifest
from palegreen.evaluators.checks.registry import build
from palegreen.evaluators.checks.view import View
from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.embed.choose import embedder
from palegreen.evaluators.embed.parts import VectorsOf, vectors_of
from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.events import EvaluationEvents
from palegreen.evaluators.ledger import Ledger
from palegreen.evaluators.redact.redactor import Redactor
from palegreen.evaluators.sample import Feedback, Observation, Sample, Step
from palegreen.evaluators.sessions import Sessions
from palegreen.evaluators.store.scored import Scored
from palegreen.evaluators.store.store import Store
from palegreen.evaluators.taps.sampling import Sampler
from palegreen.evaluators.wire.decode import Decoder
from palegreen.evaluators.wire.defaults import Defaults
from palegreen.evaluators.wire.errors import WireError
from palegreen.runtime.exposition import Collected, Readings

log = structlog.get_logger()
T = TypeVar("T")

_SAY_AGAIN = 60.0  # seconds until a trouble of the same kind is logged again
_TIDY_EVERY = 5.0
_UNTHINNED = ("proxy", "asgi", "file")  # taps that decide at a request's head, and files, which are to be read whole


class Pipeline:
    """Everything the scorer does, without the process around it.

    Args:
        config: of the evaluator.
        key: under which identifiers are hashed that have something to hide; the same key gives the same hash.
        starting: told what takes long at the start.

    Raises:
        ConfigError, EmbedderError: it cannot begin; one line.
    """

    def __init__(
        self, config: EvaluateConfig, key: bytes | None = None, starting: Callable[[str], None] = lambda _: None
    ) -> None:
        self._config = config
        self._decoder = Decoder(Defaults(), config.session_header)
        self._sampler = Sampler.of(config)
        self._redactor = Redactor(config.redaction, key)
        self._checks = build(config.checks)
        starting(f"embedder {config.embedder}")
        self._embedder = embedder(config.embedder, config.scorer_threads)
        self._digest = self._embedder.digest if self._embedder is not None else ""
        self._baseline = manifest.load(config.baseline) if config.baseline is not None else None
        self._mismatch = manifest.mismatch(self._baseline, self._embedder) if self._baseline is not None else ""
        if self._mismatch:
            log.error("baseline.unusable", cause=self._mismatch, effect="nothing is compared with it")
        self._store = (
            Store(config.store_path, config.store_max_age, config.store_max_size) if config.store_path else None
        )
        self._events = EvaluationEvents(config.otlp, config.resource()) if config.otlp is not None else None
        self._sessions = Sessions()
        self._ledger = Ledger(config)
        self._said: dict[str, float] = {}
        self._tidied = 0.0

    @property
    def about(self) -> dict[str, str]:
        """What it works with, for the log and the status page."""
        return {"embedder": self._embedder.name if self._embedder is not None else "none", "store": self._config.store}

    def score(self, batch: Sequence[Envelope], breathe: Callable[[], None] = lambda: None) -> None:
        """Work off one batch; nothing is raised. `breathe` is called between its parts."""
        with self._ledger.stage("decode"):
            samples = list(self._samples(batch))
        with self._ledger.stage("redact"):
            samples = list(self._survivors(self._redacted, samples))
        breathe()
        with self._ledger.stage("embed"):
            vectors = self._embedded(samples)
        breathe()
        with self._ledger.stage("check"):
            pairs = zip(samples, vectors, strict=True)
            scored = list(self._survivors(lambda pair: self._checked(*pair), pairs, of=lambda pair: pair[0]))
        breathe()
        if self._store is not None:
            with self._ledger.stage("store"):
                self._store.add(scored)
                self._tidy(self._store)
        if self._events is not None:
            with self._ledger.stage("export"):
                for each in scored:
                    self._events.emit(each.sample, {k: v for k, v in each.outcomes.items() if v is not None})

    def readings(self) -> Readings:
        """What is to be shown."""
        for ended in self._sessions.ended():
            self._ledger.session_ended(ended)
        now = Collected()
        if self._embedder is not None:
            now.add("palegreen_embedder_info", 1, self._embedder.name, self._digest)
        if self._baseline is not None:
            labels = (self._config.model, *self._config.common())
            now.add("palegreen_baseline_mismatch", bool(self._mismatch), *labels)
        for kind, times in self._redactor.counts.items():
            now.add("palegreen_redactions_total", times, kind)
        for check, times in self._checks.errors.items():
            now.add("palegreen_check_errors_total", times, check)
        if self._store is not None:
            counts = self._store.counts()
            now.add("palegreen_store_bytes", counts.bytes)
            if counts.samples is not None:
                now.add("palegreen_store_samples", counts.samples)
            for reason, lost in counts.lost.items():
                now.add("palegreen_store_errors_total", lost, reason)
        if self._events is not None:
            for result, times in self._events.counts().items():
                now.add("palegreen_otlp_exported_total", times, "events", result)
        return self._ledger.readings(now)

    def close(self) -> None:
        """Write what is held."""
        if self._store is not None:
            self._store.close()
        if self._events is not None:
            self._events.close()

    def _samples(self, batch: Iterable[Envelope]) -> Iterator[Sample]:
        for observation in self._observations(batch):
            if isinstance(observation, Sample):
                if self._is_wanted(observation):
                    yield observation
            elif isinstance(observation, Step):
                self._ledger.step(replace(observation, name=self._redactor.text(observation.name)))
            else:
                self._note(observation)

    def _observations(self, batch: Iterable[Envelope]) -> Iterator[Observation]:
        for envelope in batch:
            tap = str(envelope.meta.get("tap", ""))
            try:
                yield from self._decoder.decode(envelope)
            except WireError as refused:
                self._lost(tap, "undecodable", str(refused))
            except Exception as defect:  # noqa: BLE001 - one record must not end the scorer
                self._lost(tap, "scorer_error", type(defect).__name__)
        yield from self._decoder.due()
        for _ in range(self._decoder.undecodable()):
            self._lost("kserve", "undecodable", "a call whose request or response cannot be read")

    def _is_wanted(self, sample: Sample) -> bool:
        """Whether a sample is scored: what comes in batches can be thinned only here."""
        if sample.tap in _UNTHINNED:
            return True
        failed = sample.ended == "error" or (sample.status or 0) >= 400
        if failed and self._sampler.keep_errors:
            sample.sampled = "kept"
            return True
        decision = self._sampler.decide(sample.session)
        if decision.reason is not None:
            self._ledger.unsampled(sample.tap, decision.reason)
        return decision.sampled is not None

    def _note(self, feedback: Feedback) -> None:
        response_id = self._redactor.identifier(feedback.response_id)
        found = self._store.attach_feedback(response_id, feedback.kind) if self._store is not None else None
        self._ledger.feedback(feedback.kind, (found.model, found.endpoint, found.replica) if found else None)

    def _redacted(self, sample: Sample) -> Sample:
        """Without what is to be hidden, and with what the configuration knows of where it is from."""
        sample = self._redactor.sample(sample)
        sample.model = sample.model or self._config.model
        sample.endpoint = sample.endpoint or self._config.endpoint
        sample.replica = sample.replica or self._config.identity()
        return sample

    def _embedded(self, samples: Sequence[Sample]) -> list[VectorsOf]:
        """Unit vectors of each sample's response, prompt and contexts (their mean), as far as there are such."""
        if self._embedder is None:
            return [{} for _ in samples]
        try:
            return vectors_of(self._embedder, samples)
        except Exception as defect:  # noqa: BLE001 - the other checks go on
            self._say("embed", "scorer.not_embedded", samples=len(samples), cause=type(defect).__name__)
            return [{} for _ in samples]

    def _checked(self, sample: Sample, vectors: VectorsOf) -> Scored:
        compared = self._baseline is not None and not self._mismatch
        view = View(sample, vectors, self._baseline.quantiles if self._baseline is not None and compared else None)
        scored = Scored(sample, self._checks.run(view), self._digest)
        self._ledger.sample(scored)
        self._ledger.session(sample, self._sessions.observe(sample, vectors.get("prompt")))
        return scored

    def _survivors(
        self, work: Callable[[Any], T], items: Iterable[Any], of: Callable[[Any], Sample] = lambda item: item
    ) -> Iterator[T]:
        """Results of those for which the work succeeds; one sample must not end the scorer."""
        for item in items:
            try:
                yield work(item)
            except Exception as defect:  # noqa: BLE001
                self._lost(of(item).tap, "scorer_error", type(defect).__name__, exc_info=True)

    def _tidy(self, store: Store) -> None:
        now = time.monotonic()
        if now - self._tidied >= _TIDY_EVERY:
            self._tidied = now
            store.expire()

    def _lost(self, tap: str, reason: str, cause: str, **more: Any) -> None:
        self._ledger.lost(tap, reason)
        self._say(f"{tap} {reason}", "scorer.lost", tap=tap, reason=reason, cause=cause, **more)

    def _say(self, about: str, event: str, **facts: Any) -> None:
        now = time.monotonic()
        if now - self._said.get(about, -_SAY_AGAIN) >= _SAY_AGAIN:
            self._said[about] = now
            log.warning(event, **facts)
