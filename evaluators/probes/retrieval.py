"""The recall probe: approximate against exact search of an index, on sampled queries."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event, Lock

import structlog

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.embed.choose import embedder
from palegreen.evaluators.embed.embedder import Embedder, EmbedderError
from palegreen.evaluators.ledger import SECONDS
from palegreen.evaluators.probes.retrieval_callable import CallableIndex, load
from palegreen.evaluators.probes.retrieval_config import RetrievalConfig
from palegreen.evaluators.probes.retrieval_http import HttpIndex
from palegreen.evaluators.probes.retrieval_queries import Draw, QueriesError, in_turn, of_file, of_store
from palegreen.evaluators.probes.retrieval_recall import (
    Overlap,
    against_index,
    against_sample,
    against_vectors,
    bounds,
)
from palegreen.evaluators.probes.retrieval_search import Found, Question, Search, SearchError
from palegreen.evaluators.probes.retrieval_vectors import Vectors
from palegreen.runtime.exposition import Collected
from palegreen.runtime.seldom import Seldom
from palegreen.runtime.tally import Tally
from palegreen.runtime.yamlfile import ConfigError

log = structlog.get_logger()

_STALE = 3  # rounds without a result after which recall is not shown any more
BUCKETS = {"palegreen_retrieval_duration_seconds": SECONDS, "palegreen_retrieval_exact_duration_seconds": SECONDS}


@dataclass(frozen=True)
class Asked:
    """Where an index is, what it is asked, and with what its answers are compared (None: with its own exact search)."""

    search: Search
    draw: Draw
    vectors: Vectors | None = None
    embedder: Embedder | None = None


class RetrievalProbe:
    """Asks one index a few queries a round, one after the other.

    Args:
        config: of this index.
        labels: values of the labels model, endpoint, instance_id, namespace and pod.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        config: RetrievalConfig,
        asked: Asked,
        labels: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = f"retrieval {config.index}@{config.k}"
        self.interval = config.interval
        self._config = config
        self._asked = asked
        self._labels = tuple(labels)
        self._clock = clock
        self._tally = Tally(self._labels, BUCKETS)
        self._recalls: OrderedDict[str, float] = OrderedDict()  # the latest of each query, the newest last
        self._summary: dict[str, float] | None = None  # what is shown of them
        self._latest = -float("inf")
        self._lock = Lock()
        self._seldom = Seldom(clock)
        for result in ("ok", "failed", "timeout"):  # there from the start, so that increase() sees the first
            self._count("palegreen_retrieval_queries_total", result, by=0)

    def run(self, stopped: Event) -> None:
        """One round."""
        try:
            questions = self._asked.draw(self._config.queries_per_round)
        except QueriesError as failure:
            self._trouble("no_query", str(failure))
            return
        for question in questions:
            if stopped.is_set():
                return
            try:
                self._ask(question)
            except SearchError as failure:
                self._trouble(failure.result, str(failure))

    def show(self, collected: Collected) -> None:
        """Add what was measured; recall only while it is fresh."""
        collected.include(self._tally.readings())
        shown = Collected(*self._labels)
        with self._lock:
            summary, fresh = (
                self._summary,
                self._clock() - self._latest <= _STALE * self.interval + self._config.exact_timeout,
            )
        if summary is not None and fresh:
            about = self._config.index, str(self._config.k)
            for name, value in summary.items():
                shown.add(f"palegreen_retrieval_recall_{name}", value, *about)
        collected.include(shown.readings())

    def _ask(self, question: Question) -> None:
        asked, k = self._asked, self._config.k
        question = self._embedded(question)
        found = self._timed("palegreen_retrieval_duration_seconds", question, False, "probe")
        try:
            if asked.vectors is None:
                exact = self._timed("palegreen_retrieval_exact_duration_seconds", question, True)
                overlap = against_index(found, exact, k) if exact.ids else Overlap(0, 0)
            else:
                overlap = self._compared(asked.vectors, found, question)
        except SearchError as failure:
            self._trouble("exact_failed", f"exact search: {failure}")
            return
        self._count("palegreen_retrieval_queries_total", self._result(found, overlap))
        if overlap.expected:
            about = self._config.index, str(k)
            self._tally.count("palegreen_retrieval_recall_hits_total", *about, by=overlap.hits)
            self._tally.count("palegreen_retrieval_recall_expected_total", *about, by=overlap.expected)
            self._recalls.pop(question.key, None)
            self._recalls[question.key] = overlap.recall
            while len(self._recalls) > self._config.window:
                self._recalls.popitem(last=False)
            self._sum_up()

    def _sum_up(self) -> None:
        recalls = list(self._recalls.values())
        low, high = bounds(recalls)
        mean = sum(recalls) / len(recalls)
        named = {"ratio": mean, "lower_ratio": low, "upper_ratio": high, "window_queries": float(len(recalls))}
        with self._lock:
            self._summary, self._latest = named, self._clock()

    def _embedded(self, question: Question) -> Question:
        if self._asked.embedder is None or question.vector is not None:
            return question
        try:
            return question._replace(vector=self._asked.embedder.embed([question.text])[0])
        except Exception as defect:  # noqa: BLE001 - of a model that somebody else made
            raise SearchError("failed", f"the query cannot be embedded: {type(defect).__name__}") from None

    def _timed(self, series: str, question: Question, exact: bool, *labels: str) -> Found:
        """Search, and observe how long a search that succeeded took."""
        began = time.perf_counter()
        found = self._asked.search(question, self._config.k, exact)
        self._tally.observe(series, time.perf_counter() - began, self._config.index, *labels)
        return found

    def _compared(self, vectors: Vectors, found: Found, question: Question) -> Overlap:
        vector = found.vector if question.vector is None else question.vector
        if vector is None:
            raise SearchError("failed", "neither the query nor the answer has a vector; set embedder or query_vector")
        compare = against_sample if self._config.vectors_sample else against_vectors
        try:
            return compare(found, vectors, vector, self._config.k)
        except ValueError as refused:
            raise SearchError("failed", str(refused)) from None

    def _result(self, found: Found, overlap: Overlap) -> str:
        """What is odd about an answer; all but `unscored` enters recall."""
        config, ids = self._config, found.ids[: self._config.k]
        if not ids:
            return "empty"
        if not overlap.expected:
            return "unscored"
        if len(set(ids)) < len(ids):
            return "duplicates"
        vectors = self._asked.vectors
        if vectors is not None and not config.vectors_sample and any(each not in vectors for each in ids):
            return "unknown_ids"
        return "short" if not config.vectors_sample and len(ids) < overlap.expected else "ok"

    def _count(self, name: str, *labels: str, by: float = 1.0) -> None:
        self._tally.count(name, self._config.index, *labels, by=by)

    def _trouble(self, result: str, cause: str) -> None:
        self._count("palegreen_retrieval_queries_total", result)
        if self._seldom.due(result):
            log.warning("retrieval.trouble", index=self._config.index, result=result, cause=cause)


def probes(
    config: EvaluateConfig, embedder_named: Callable[[str], Embedder | None] = lambda name: embedder(name, 1)
) -> list[RetrievalProbe]:
    """The recall probes that are configured, files read and functions loaded.

    `embedder_named` loads an embedder. Raises ConfigError, one line.
    """
    labels = (config.model, *config.common())
    return [RetrievalProbe(each, _asked(each, config, embedder_named), labels) for each in config.retrieval]


def _asked(
    config: RetrievalConfig, all_of_it: EvaluateConfig, embedder_named: Callable[[str], Embedder | None]
) -> Asked:
    origin = f"retrieval {config.index}"
    search: Search
    if config.http is not None:
        search = HttpIndex(config.http, config.index, config.timeout, config.exact_timeout)
    else:
        search = CallableIndex(load(config.python or "", f"{origin}: python"), config.timeout, config.exact_timeout)
    try:
        model = embedder_named(config.embedder) if config.embedder is not None else None
    except EmbedderError as refused:
        raise ConfigError(f"{origin}: embedder: {refused}") from None
    vectors = None
    if config.vectors is not None:
        vectors = Vectors(config.vectors, config.distance, config.vectors_limit, f"{origin}: vectors")
        if model is not None and model.dimensions != vectors.dimensions:
            raise ConfigError(
                f"{origin}: embedder {config.embedder} has {model.dimensions} dimensions, the vectors "
                f"{vectors.dimensions}; allowed: the embedder that the index was made with"
            )
    return Asked(search, _draw(config, all_of_it, model is not None, vectors), vectors, model)


def _draw(config: RetrievalConfig, all_of_it: EvaluateConfig, embeds: bool, vectors: Vectors | None) -> Draw:
    """Where questions come from; refused at once if they cannot be what the index is asked."""
    origin, http = f"retrieval {config.index}", config.http
    compared = vectors is not None and http is not None and not http.query_vector  # a function may tell the vector
    wants_vector = not embeds and (compared or (http is not None and http.wants("$vector")))
    if config.queries is None:
        if all_of_it.store_path is None:
            raise ConfigError(f"{origin}: there is neither a file of queries nor a store; allowed: one of them")
        if wants_vector:
            raise ConfigError(f"{origin}: prompts of the store have no vector; allowed: an embedder, or queries")
        return of_store(all_of_it.store_path, config.seed)
    questions = of_file(config.queries, f"{origin}: queries")
    for question in questions:
        if question.vector is None and wants_vector:
            raise ConfigError(f"{origin}: queries: {config.queries}: a query has no vector; allowed: an embedder")
        if not question.text and http is not None and http.wants("$text"):
            raise ConfigError(f"{origin}: queries: {config.queries}: a query has no text, and http asks for $text")
        if question.vector is not None and vectors is not None and len(question.vector) != vectors.dimensions:
            raise ConfigError(
                f"{origin}: queries: {config.queries}: a vector has {len(question.vector)} dimensions, those of "
                f"{config.vectors} {vectors.dimensions}; allowed: the same"
            )
    return in_turn(questions, config.seed)
