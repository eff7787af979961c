"""The judge: a model that scores samples in a thread of its own, beside the scorer and never in its way."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event, Lock, Thread

import structlog

from palegreen.evaluators.judge.budget import Budget
from palegreen.evaluators.judge.client import Asked, Client
from palegreen.evaluators.judge.config import JudgeConfig
from palegreen.evaluators.judge.rubric import VERSION
from palegreen.evaluators.sample import Sample
from palegreen.runtime.exposition import Collected
from palegreen.runtime.seldom import Seldom
from palegreen.runtime.tally import Tally

log = structlog.get_logger()

_WAITING = 16  # samples that wait for the judge
_JUDGED = 256  # verdicts that wait to be stored
_CONTEXTS = 8
_BACKOFF = (1.0, 300.0)  # seconds without a request after a failure, doubling
_FREE = frozenset({"model", "endpoint", "instance_id"})
BUCKETS = {"palegreen_judge_score": (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)}
Labels = tuple[str, str, str, str, str]


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict on the choice of a response, for the store."""

    id: str
    choice: int
    score: float
    reasons: str
    model: str
    prompt_version: str = VERSION


@dataclass(frozen=True, slots=True)
class _Case:
    """What is kept of a sample that waits: the texts as they will be sent."""

    question: str
    contexts: list[str]
    answer: str
    id: str
    choice: int
    labels: Labels
    trigger: str


class Judge:
    """Asked for a sample by `offer`, which never waits.

    Args:
        labels: values of model, endpoint, instance_id, namespace and pod for what concerns no sample.
        clock: seconds that only go forward.

    Raises:
        ConfigError: a file that is named cannot be used.
    """

    def __init__(self, config: JudgeConfig, labels: Labels, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._labels = labels
        self._client = Client(config)
        self._budget = Budget(config.requests_per_hour, config.background_per_hour, clock)
        self._tally = Tally((), BUCKETS, free=_FREE)
        self._waiting: queue.Queue[_Case] = queue.Queue(_WAITING)
        self._judged: list[Judged] = []
        self._lock = Lock()
        self._stopped = Event()
        self._seldom = Seldom(clock)
        self._tally.set("palegreen_judge_info", 1, *labels, config.model, VERSION)
        for result in ("ok", "unparsable", "failed", "timeout"):  # there from the start: increase() sees the first
            self._tally.count("palegreen_judge_requests_total", *labels, result, by=0)
        self._thread = Thread(target=self._work, name="judge", daemon=True)
        self._thread.start()

    def offer(self, sample: Sample, alarmed: bool) -> None:
        """Have a redacted sample judged if there is cause and budget for it. `alarmed`: an alarm is up."""
        if not _judgeable(sample) or not (alarmed or self._budget.is_due()):
            return
        labels = (sample.model, sample.endpoint, sample.replica, *self._labels[3:])
        if self._waiting.full():
            self._tally.count("palegreen_judge_skipped_total", *labels, "queue_full")
        elif not self._budget.take(background=not alarmed):
            self._tally.count("palegreen_judge_skipped_total", *labels, "budget")
        else:  # the scorer alone puts: there is room
            self._waiting.put_nowait(self._case(sample, labels, "alarm" if alarmed else "background"))

    def judged(self) -> Sequence[Judged]:
        """Verdicts since the last call."""
        with self._lock:
            verdicts, self._judged = self._judged, []
        return verdicts

    def show(self, collected: Collected) -> None:
        """Add what was counted."""
        collected.include(self._tally.readings())

    def close(self) -> None:
        """Ask for no more; nothing is waited for."""
        self._stopped.set()

    def _case(self, sample: Sample, labels: Labels, trigger: str) -> _Case:
        most = self._config.max_characters
        contexts = [text[:most] for text in sample.contexts[:_CONTEXTS]] if self._config.contexts else []
        texts = sample.prompt[:most], contexts, sample.response[:most]
        return _Case(*texts, sample.id, sample.choice, labels, trigger)

    def _work(self) -> None:
        pause = _BACKOFF[0]
        while not self._stopped.is_set():
            try:
                case = self._waiting.get(timeout=0.5)
            except queue.Empty:
                continue
            try:
                asked = self._client.ask(case.question, case.contexts, case.answer)
            except Exception as defect:  # noqa: BLE001 - one sample must not end the judge
                asked = Asked("failed", cause=type(defect).__name__)
            self._note(case, asked)
            if asked.result in ("ok", "unparsable"):
                pause = _BACKOFF[0]
            else:
                self._stopped.wait(pause)
                pause = min(pause * 2, _BACKOFF[1])

    def _note(self, case: _Case, asked: Asked) -> None:
        labels, config = case.labels, self._config
        self._tally.count("palegreen_judge_requests_total", *labels, asked.result)
        tokens = {"input": asked.input_tokens, "output": asked.output_tokens}
        for direction, count in tokens.items():
            self._tally.count("palegreen_judge_tokens_total", *labels, direction, by=count)
        if config.input_price is not None and config.output_price is not None:
            cost = (asked.input_tokens * config.input_price + asked.output_tokens * config.output_price) / 1e6
            self._tally.count("palegreen_judge_cost_total", *labels, config.currency, by=cost)
        if asked.verdict is None:
            self._say(asked)
            return
        self._tally.observe("palegreen_judge_score", asked.verdict.score, *labels, case.trigger)
        judged = Judged(case.id, case.choice, asked.verdict.score, asked.verdict.reasons, config.model)
        with self._lock:
            self._judged = [*self._judged[1 - _JUDGED :], judged]

    def _say(self, asked: Asked) -> None:
        if self._seldom.due(asked.result):
            log.warning("judge.trouble", result=asked.result, cause=asked.cause)


def _judgeable(sample: Sample) -> bool:
    """Whether it is a whole answer and a fair one: errors, aborts and tagged requests tell nothing of the model."""
    answered = sample.ended == "complete" and (sample.status or 0) < 400 and not sample.truncated
    return answered and sample.sampled == "rate" and bool(sample.response.strip())
