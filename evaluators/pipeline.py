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
from palegreen.evaluators.deploy import stale
from palegreen.evaluators.deploy.markers import Markers
from palegreen.evaluators.drift.follow import Follower
from palegreen.evaluators.embed.choose import embedder
from palegreen.evaluators.embed.parts import VectorsOf, vectors_of
from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.events import EvaluationEvents
from palegreen.evaluators.judge.judge import Judge
from palegreen.evaluators.ledger import Ledger, failed
from palegreen.evaluators.redact.redactor import Redactor
from palegreen.evaluators.replicas.counts import Projections
from palegreen.evaluators.replicas.projection import projection
from palegreen.evaluators.sample import CANARY, Feedback, Observation, Sample, Step
from palegreen.evaluators.sessions import Sessions
from palegreen.evaluators.store.scored import Scored
from palegreen.evaluators.store.store import Store
from palegreen.evaluators.taps.sampling import Decision, Sampler
from palegreen.evaluators.wire.decode import Decoder
from palegreen.evaluators.wire.defaults import Defaults
from palegreen.evaluators.wire.errors import WireError
from palegreen.runtime.exposition import Collected, Readings
from palegreen.runtime.seldom import Seldom

log = structlog.get_logger()
T = TypeVar("T")

_TIDY_EVERY = 5.0
_MOST_SAMPLES = 64  # worked off at once
_MOST_CHARACTERS = 4 << 20
_EMBEDDED = 32
_UNTHINNED = ("proxy", "asgi", "file")  # taps that decide at a request's head, and files, which are to be read whole


class Pipeline:
    """Everything the scorer does, without the process around it.

    Args:
        config: of the evaluator.
        key: under which identifiers are hashed that have something to hide; the same key gives the same hash.
        starting: told what takes long at the start.
        markers: of changes, as an earlier pipeline left them.

    Raises:
        ConfigError, EmbedderError: it cannot begin; one line.
    """

    def __init__(
        self,
        config: EvaluateConfig,
        key: bytes | None = None,
        starting: Callable[[str], None] = lambda _: None,
        markers: Markers | None = None,
    ) -> None:
        self._config = config
        self._markers = markers or Markers()
        self._decoder = Decoder(Defaults(), config.session_header, config.keep_header)
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
        if self._baseline is not None and (other := stale.of_another_version(self._baseline)):
            log.warning("baseline.of_another_version", cause=other, effect="it is used, and shown as stale")
        self._store = (
            Store(config.store_path, config.store_max_age, config.store_max_size) if config.store_path else None
        )
        self._drift: Follower | None = None
        if config.baseline is not None and self._baseline is not None and not self._mismatch:
            self._drift = Follower.of(config, config.baseline, self._baseline, self._markers.near)
        self._events = EvaluationEvents(config.otlp, config.resource()) if config.otlp is not None else None
        self._judge = Judge(config.judge, (config.model, *config.common())) if config.judge is not None else None
        self._sessions = Sessions()
        self._ledger = Ledger(config)
        self._projections = self._projected(config)
        self._seldom = Seldom()
        self._tidied = 0.0
        self._decided: tuple[tuple[Any, ...], Decision] = ((), Decision(None))

    @property
    def about(self) -> dict[str, str]:
        """What it works with, for the log and the status page."""
        return {
            "embedder": self._embedder.name if self._embedder is not None else "none",
            "store": self._config.store,
            "baseline": self._drift.about if self._drift is not None else "none",
        }

    def score(self, batch: Sequence[Envelope], breathe: Callable[[], None] = lambda: None) -> None:
        """Work off one batch; nothing is raised. `breathe` is called again and again meanwhile."""
        samples: list[Sample] = []
        size = 0
        for envelope in batch:
            with self._ledger.stage("decode"):
                found = list(self._samples(self._observations(envelope)))
            samples += found
            size += sum(len(sample.response) for sample in found)
            breathe()
            if len(samples) >= _MOST_SAMPLES or size >= _MOST_CHARACTERS:
                self._work_off(samples, breathe)
                samples, size = [], 0
        self._work_off([*samples, *self._samples(self._due())], breathe)
        self._tidy()
        if batch and (queued := batch[-1].meta.get("queued")):
            self._ledger.waited(time.monotonic() - queued)

    def _work_off(self, samples: list[Sample], breathe: Callable[[], None]) -> None:
        with self._ledger.stage("redact"):
            samples = list(self._survivors(self._redacted, samples, breathe))
        for at in range(0, len(samples), _EMBEDDED):
            some = samples[at : at + _EMBEDDED]
            with self._ledger.stage("embed"):
                vectors = self._embedded(some)
            breathe()
            with self._ledger.stage("check"):
                pairs = zip(some, vectors, strict=True)
                checked = list(self._survivors(self._checked, pairs, breathe, of=lambda pair: pair[0]))
            scored = [each for each, _ in checked]
            if self._drift is not None:
                with self._ledger.stage("drift"):
                    self._drift.follow(scored, [each for _, each in checked])
            breathe()
            self._keep(scored)

    def _keep(self, scored: Sequence[Scored]) -> None:
        if self._store is not None:
            with self._ledger.stage("store"):
                self._store.add(scored)
        if self._events is not None:
            with self._ledger.stage("export"):
                for each in scored:
                    self._events.emit(each.sample, {k: v for k, v in each.outcomes.items() if v is not None})
        if self._judge is not None:
            for each in scored:
                alarmed = self._drift is not None and self._drift.alarmed(each.sample.replica)
                self._judge.offer(each.sample, alarmed=alarmed)

    def _keep_verdicts(self, judge: Judge) -> None:
        for verdict in judge.judged():
            if self._store is None:
                log.info("judge.verdict", id=verdict.id, choice=verdict.choice, score=verdict.score)
            else:
                why = f"{verdict.reasons} ({verdict.model}, rubric {verdict.prompt_version})"
                entry = {"passed": None, "score": verdict.score, "why": why}
                self._store.attach_score(verdict.id, verdict.choice, "judge", entry)

    def readings(self) -> Readings:
        """What is to be shown."""
        for ended in self._sessions.ended():
            self._ledger.session_ended(ended)
        now = Collected()
        if self._embedder is not None:
            now.add("palegreen_embedder_info", 1, self._embedder.name, self._digest)
        if self._baseline is not None and self._config.baseline is not None:
            labels = (self._config.model, *self._config.common())
            manifest.show(now, self._baseline, self._config.baseline.resolve().name, bool(self._mismatch), labels)
            about = stale.reasons(self._baseline, self._config.baseline_max_age, self._markers.deployed, self._mismatch)
            stale.show(now, about, labels)
        if self._projections is not None:
            self._projections.show(now)
        if self._config.revision:
            labels = (self._config.model, *self._config.common())
            now.add("palegreen_replica_revision_info", 1, *labels, self._config.revision)
        for kind, times in self._redactor.counts.items():
            now.add("palegreen_redactions_total", times, kind)
        for check, times in self._checks.errors.items():
            now.add("palegreen_check_errors_total", times, check)
        if self._drift is not None:
            self._drift.show(now)
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
        if self._judge is not None:
            self._judge.show(now)
        return self._ledger.readings(now)

    def close(self) -> None:
        """Write what is held."""
        if self._judge is not None:
            self._judge.close()
            self._keep_verdicts(self._judge)
        if self._drift is not None:
            self._drift.close()
        if self._store is not None:
            self._store.close()
        if self._events is not None:
            self._events.close()

    def _samples(self, observations: Iterable[Observation]) -> Iterator[Sample]:
        for observation in observations:
            if isinstance(observation, Sample):
                if self._is_wanted(observation):
                    yield observation
            elif isinstance(observation, Step):
                text = self._redactor.text
                self._ledger.step(replace(observation, name=text(observation.name), model=text(observation.model)))
            else:
                self._note(observation)

    def _observations(self, envelope: Envelope) -> Iterator[Observation]:
        tap = str(envelope.meta.get("tap", ""))
        try:
            yield from self._decoder.decode(envelope)
        except WireError as refused:
            self._lost(tap, "undecodable", str(refused))
        except Exception as defect:  # noqa: BLE001 - one record must not end the scorer
            self._lost(tap, "scorer_error", type(defect).__name__)

    def _due(self) -> Iterator[Observation]:
        """What has waited long enough for its other half."""
        yield from self._decoder.due()
        for reason, times in self._decoder.lost().items():
            for _ in range(times):
                self._lost("kserve", reason, "the request or the response of a call is missing or cannot be read")

    def _is_wanted(self, sample: Sample) -> bool:
        """Whether a sample is scored: what comes in batches can be thinned only here, all choices of a call alike."""
        if sample.session == CANARY:
            self._ledger.unsampled(sample.tap, "canary")
            return False
        if sample.tap in _UNTHINNED or sample.sampled == "kept":
            return True
        call = (sample.tap, sample.id, sample.trace_id, sample.time)
        if sample.choice and call == self._decided[0]:
            decision = self._decided[1]
        else:
            decision = self._sampler.decide(sample.session, failed=failed(sample))
            self._decided = call, decision
            if decision.reason is not None:
                self._ledger.unsampled(sample.tap, decision.reason)
        sample.sampled = decision.sampled or "rate"
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

    def _checked(self, pair: tuple[Sample, VectorsOf]) -> tuple[Scored, VectorsOf]:
        sample, vectors = pair
        self._markers.observe(sample)
        baseline = self._baseline.quantiles if self._baseline is not None and not self._mismatch else None
        scored = Scored(sample, self._checks.run(View(sample, vectors, baseline)), self._digest)
        self._ledger.sample(scored, self._sessions.observe(sample, vectors.get("prompt")))
        if (
            self._projections is not None
            and sample.sampled == "rate"
            and not self._projections.add(self._ledger.labels(sample), vectors)
        ):
            self._say("projection", "replicas.not_compared", cause="the embedder gave vectors that are not finite")
        return scored, vectors

    def _projected(self, config: EvaluateConfig) -> Projections | None:
        found = projection(self._embedder, config.projection) if self._embedder is not None else None
        return Projections(found, (config.model, *config.common()) if config.model else None) if found else None

    def _survivors(
        self,
        work: Callable[[Any], T],
        items: Iterable[Any],
        breathe: Callable[[], None],
        of: Callable[[Any], Sample] = lambda item: item,
    ) -> Iterator[T]:
        """Results of those for which the work succeeds; one sample must not end the scorer."""
        for item in items:
            try:
                yield work(item)
            except Exception as defect:  # noqa: BLE001
                self._lost(of(item).tap, "scorer_error", type(defect).__name__, exc_info=True)
            breathe()

    def _tidy(self) -> None:
        """Have the store forget what is too old and take what the judge says, when nothing comes too."""
        if self._judge is not None:
            self._keep_verdicts(self._judge)
        now = time.monotonic()
        if self._store is not None and now - self._tidied >= _TIDY_EVERY:
            self._tidied = now
            with self._ledger.stage("store"):
                self._store.expire()

    def _lost(self, tap: str, reason: str, cause: str, **more: Any) -> None:
        self._ledger.lost(tap, reason)
        self._say(f"{tap} {reason}", "scorer.lost", tap=tap, reason=reason, cause=cause, **more)

    def _say(self, about: str, event: str, **facts: Any) -> None:
        if self._seldom.due(about):
            log.warning(event, **facts)
