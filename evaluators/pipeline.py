"""What happens to a record: decode -> redact -> embed -> check -> tally, store, export."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.checks.registry import build
from palegreen.evaluators.checks.view import View
from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.embed.choose import embedder
from palegreen.evaluators.embed.embedder import Vectors
from palegreen.evaluators.envelope import Envelope
from palegreen.evaluators.ledger import Ledger
from palegreen.evaluators.redact.redactor import Redactor
from palegreen.evaluators.sample import Feedback, Observation, Sample, Step
from palegreen.evaluators.sessions import Sessions
from palegreen.evaluators.store.store import Scored, Store
from palegreen.evaluators.wire.decode import Decoders
from palegreen.evaluators.wire.errors import WireError
from palegreen.runtime.exposition import Readings

log = structlog.get_logger()

_CONTEXTS = 4  # passages of a sample that are embedded
_SAY_AGAIN = 60.0  # seconds until a trouble of the same kind is logged again


class Pipeline:
    """Everything the scorer does, without the process around it. `starting` is told what takes long at the start.

    Raises ConfigError and EmbedderError, one line, where it cannot begin.
    """

    def __init__(self, config: EvaluateConfig, starting: Callable[[str], None] = lambda _: None) -> None:
        self._config = config
        self._decoders = Decoders(config)
        self._redactor = Redactor(config.redaction)
        self._checks = build(config.checks)
        if config.embedder != "none":
            starting(f"embedder {config.embedder}")
        self._embedder = embedder(config.embedder, config.embedder_dir, config.scorer_threads)
        self._store = (
            Store(config.store_path, config.store_max_age, config.store_max_size) if config.store_path else None
        )
        self._sessions = Sessions()
        self._events = _events(config)
        self._ledger = Ledger(config)
        self._said: dict[str, float] = {}

    @property
    def about(self) -> dict[str, str]:
        """What it works with, for the log and the status page."""
        return {"embedder": self._embedder.name if self._embedder else "none", "store": self._config.store}

    def score(self, batch: Sequence[Envelope], breathe: Callable[[], None] = lambda: None) -> None:
        """Work off one batch; nothing is raised. `breathe` is called between samples."""
        samples = []
        with self._ledger.stage("decode"):
            for envelope in batch:
                for observation in self._decoded(envelope):
                    if isinstance(observation, Sample):
                        samples.append(self._placed(observation))
                    else:
                        self._note(observation)
        with self._ledger.stage("redact"):
            samples = [redacted for sample in samples for redacted in self._guarded(self._redactor.sample, sample)]
        with self._ledger.stage("embed"):
            vectors = self._embedded(samples)
        breathe()
        scored = []
        for sample, found in zip(samples, vectors, strict=True):
            with self._ledger.stage("check"):
                scored += self._guarded(lambda sample, found=found: self._checked(sample, found), sample)
            breathe()
        if self._store is not None:
            with self._ledger.stage("store"):
                self._store.add(scored)
        if self._events is not None:
            with self._ledger.stage("export"):
                for each in scored:
                    self._events.emit(each.sample, each.outcomes)

    def readings(self) -> Readings:
        """What is to be shown."""
        for turns, sample in self._sessions.ended():
            self._ledger.session_ended(turns, sample)
        return self._ledger.readings(
            redactions=self._redactor.counts, embedder=self._embedder, store=self._store, events=self._events
        )

    def close(self) -> None:
        """Write what is held."""
        if self._store is not None:
            self._store.close()
        if self._events is not None:
            self._events.close()

    def _decoded(self, envelope: Envelope) -> list[Observation]:
        tap = str(envelope.meta.get("tap", ""))
        try:
            return self._decoders.decode(envelope)
        except WireError as refused:
            self._lost(tap, "undecodable", str(refused))
        except Exception as defect:  # noqa: BLE001 - one record must not end the scorer
            self._lost(tap, "scorer_error", repr(type(defect)), exc_info=True)
        return []

    def _placed(self, sample: Sample) -> Sample:
        """With what the configuration knows of where it is from."""
        sample.model = sample.model or self._config.model
        sample.endpoint = sample.endpoint or self._config.endpoint
        sample.replica = sample.replica or self._config.identity()
        return sample

    def _note(self, observation: Step | Feedback) -> None:
        if isinstance(observation, Step):
            self._ledger.step(observation)
        else:
            found = self._store.attach_feedback(observation.response_id, observation.kind) if self._store else None
            self._ledger.feedback(observation.kind, found)

    def _embedded(self, samples: Sequence[Sample]) -> list[dict[str, NDArray[np.float32]]]:
        """Unit vectors of each sample's response, prompt and contexts (their mean), as far as there are such."""
        if self._embedder is None or not samples:
            return [{} for _ in samples]
        texts: list[str] = []
        places: list[dict[str, slice]] = []
        for sample in samples:
            place = {}
            for part, these in (
                ("response", [sample.response]),
                ("prompt", [sample.prompt]),
                ("context", sample.contexts[:_CONTEXTS]),
            ):
                these = [text for text in these if text.strip()]
                if these:
                    place[part] = slice(len(texts), len(texts) + len(these))
                    texts += these
            places.append(place)
        try:
            rows = self._embedder.embed(texts)
        except Exception:  # noqa: BLE001 - the other checks go on
            self._say("embed", "scorer.not_embedded", samples=len(samples), exc_info=True)
            return [{} for _ in samples]
        return [{part: _mean(rows[where]) for part, where in place.items()} for place in places]

    def _checked(self, sample: Sample, vectors: Mapping[str, NDArray[np.float32]]) -> Scored:
        outcomes: dict[str, Outcome | None] = self._checks.run(View(sample, vectors, self._checks.settings))
        signals = self._sessions.observe(sample, vectors.get("prompt"))
        scored = Scored(sample, outcomes)
        self._ledger.sample(scored, signals)
        return scored

    def _guarded(self, function: Callable[[Sample], Any], sample: Sample) -> Iterator[Any]:
        try:
            yield function(sample)
        except Exception as defect:  # noqa: BLE001 - one sample must not end the scorer
            self._lost(sample.tap, "scorer_error", repr(type(defect)), exc_info=True)

    def _lost(self, tap: str, reason: str, cause: str, **more: Any) -> None:
        self._ledger.lost(tap, reason)
        self._say(f"{tap} {reason}", "scorer.lost", tap=tap, reason=reason, cause=cause, **more)

    def _say(self, about: str, event: str, **facts: Any) -> None:
        now = time.monotonic()
        if now - self._said.get(about, -_SAY_AGAIN) >= _SAY_AGAIN:
            self._said[about] = now
            log.warning(event, **facts)


def _mean(rows: Vectors) -> NDArray[np.float32]:
    mean = rows.mean(axis=0)
    length = float(np.linalg.norm(mean))
    return mean / length if length > 0 else mean


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _events(config: EvaluateConfig) -> Any:
    return None
