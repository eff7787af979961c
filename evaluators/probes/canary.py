"""The canaries: fixed questions put straight to the replica, and what their answers say against recorded ones."""

from __future__ import annotations

import random
from threading import Event

import structlog

from palegreen.evaluators.config import EvaluateConfig
from palegreen.evaluators.probes.budget import Budget
from palegreen.evaluators.probes.chat import Chat, Said
from palegreen.evaluators.probes.client import AskError
from palegreen.evaluators.probes.compare import Component, Embed
from palegreen.evaluators.probes.config import CanaryConfig
from palegreen.evaluators.probes.prompts import SAMPLED
from palegreen.evaluators.probes.reference import Case, Reference
from palegreen.evaluators.probes.sampled import Sampled
from palegreen.evaluators.probes.verdict import Judge
from palegreen.runtime.exposition import Collected
from palegreen.runtime.tally import Tally

log = structlog.get_logger()

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0)
_BUCKETS = {
    "palegreen_canary_duration_seconds": _SECONDS,
    "palegreen_canary_time_to_first_token_seconds": _SECONDS,
}
_ERRORS = ("connection", "timeout", "interrupted", "malformed", "refused", "busy", "secret")


class Canary:
    """Puts one question a round: each in turn, in an order that is drawn anew, or one at a temperature."""

    name = "canary"

    def __init__(
        self,
        config: EvaluateConfig,
        canary: CanaryConfig,
        reference: Reference,
        chat: Chat,
        embed: Embed,
        *,
        rng: random.Random | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.interval = 60 / canary.requests_per_minute
        self._canary = canary
        self._reference = reference
        self._chat = chat
        self._rng = rng or random.Random()  # noqa: S311 - which question comes when is no secret
        self._model = reference.model
        self._cases = {case.prompt.name: case for case in reference.cases}
        self._judges = {name: Judge(case, embed) for name, case in self._cases.items()}
        every = self.interval / canary.sampled_share if canary.sampled_share else float("inf")
        self._sampled = Sampled(reference.cases, canary.false_alarm_every / every, embed)
        self._budget = budget or Budget(canary.tokens_per_hour, max(case.cost for case in reference.cases))
        self._labels = (self._model, *config.common())
        self._tally = Tally(self._labels, _BUCKETS)
        self._queue: list[str] = []
        self._said: dict[str, str] = {}
        self._scores: dict[str, tuple[float, dict[Component, float]]] = {}  # of the last answers, while there are such
        self._other_model = ""
        self._begin()

    def run(self, stopped: Event) -> None:
        """One question, if the budget has room for it."""
        name, sampled = self._next()
        case = self._cases[name]
        if not self._budget.allows(case.cost):
            self._tally.count("palegreen_canary_skipped_total", "budget")
            return
        if not sampled:
            self._queue.pop()
        temperature = self._reference.temperature if sampled else 0.0
        shown = SAMPLED if sampled else name
        request = case.prompt.request(temperature) | {"model": self._model}
        try:
            said = self._chat.ask(request, timeout=self._canary.timeout, stopped=stopped)
        except AskError as failure:
            if failure.reason != "stopped":
                self._tally.count("palegreen_canary_runs_total", shown, "error")
                self._tally.count("palegreen_canary_errors_total", failure.reason)
                self._budget.spend(case.cost)  # it may have been worked on
                self._scores.pop(shown, None)  # absent is better than old
                self._say(shown, "canary.error", reason=failure.reason, status=failure.status)
            return
        self._spent(case, said)
        self._check_model(said.model)
        if sampled:
            self._judge_sampled(name, said)
        else:
            self._judge(name, said)

    def show(self, collected: Collected) -> None:
        """Add its series."""
        collected.add("palegreen_canary_reference_info", 1, *self._labels, self._reference.id)
        collected.add("palegreen_canary_reference_created_timestamp_seconds", self._reference.created, *self._labels)
        collected.add("palegreen_canary_reference_mismatch", bool(self._other_model), *self._labels)
        for name, (score, components) in list(self._scores.items()):
            collected.add("palegreen_canary_score", score, *self._labels, name)
            for component, value in components.items():
                collected.add("palegreen_canary_component_score", value, *self._labels, name, component)
        collected.include(self._tally.readings())

    def _begin(self) -> None:
        """Series that are there from the start, so that increase() sees the first."""
        names = [*self._cases, SAMPLED] if self._canary.sampled_share and self._sampled.names else list(self._cases)
        for name in names:
            for result in ("pass", "fail", "error"):
                self._tally.count("palegreen_canary_runs_total", name, result, by=0)
        for reason in _ERRORS:
            self._tally.count("palegreen_canary_errors_total", reason, by=0)
        self._tally.count("palegreen_canary_skipped_total", "budget", by=0)
        for direction in ("input", "output"):
            self._tally.count("palegreen_canary_tokens_total", direction, by=0)

    def _next(self) -> tuple[str, bool]:
        """The question of this round, and whether it is asked at the reference's temperature."""
        if self._sampled.names and self._rng.random() < self._canary.sampled_share:
            return self._rng.choice(self._sampled.names), True
        if not self._queue:
            self._queue = self._rng.sample(list(self._cases), len(self._cases))
        return self._queue[-1], False

    def _spent(self, case: Case, said: Said) -> None:
        into, out = said.prompt_tokens or case.greedy[0].prompt_tokens, said.completion_tokens
        self._budget.spend(into + out)
        self._tally.count("palegreen_canary_tokens_total", "input", by=into)
        self._tally.count("palegreen_canary_tokens_total", "output", by=out)

    def _judge(self, name: str, said: Said) -> None:
        verdict = self._judges[name].judge(said)
        result = "fail" if verdict.failed else "pass"
        self._tally.count("palegreen_canary_runs_total", name, result)
        self._scores[name] = verdict.score, verdict.components
        self._tally.observe("palegreen_canary_duration_seconds", said.duration)
        self._tally.observe("palegreen_canary_time_to_first_token_seconds", said.ttft)
        self._say(name, "canary.fail" if verdict.failed else "canary.pass", **_reason(verdict.failed))

    def _judge_sampled(self, name: str, said: Said) -> None:
        loss, ratio = self._sampled.take(name, said.text)
        self._tally.count("palegreen_canary_runs_total", SAMPLED, "fail" if ratio > 1 else "pass")
        self._scores[SAMPLED] = 1 - loss, {}
        self._tally.set("palegreen_canary_sampled_score_ratio", ratio)
        self._say(SAMPLED, "canary.fail" if ratio > 1 else "canary.pass")

    def _check_model(self, served: str) -> None:
        """Another name than the reference's is told, and compared all the same: it may be the same model."""
        other = served if served != self._reference.served else ""
        if other != self._other_model:
            self._other_model = other
            effect = "palegreen_canary_reference_mismatch is 1" if other else "it matches again"
            log.warning("canary.model", served=served, reference=self._reference.served, effect=effect)

    def _say(self, canary: str, event: str, **why: object) -> None:
        """Log what has changed, never what was written."""
        said = f"{event} {why}"
        if said != self._said.get(canary, "canary.pass {}"):
            (log.info if event == "canary.pass" else log.warning)(event, canary=canary, **why)
        self._said[canary] = said


def _reason(failed: tuple[Component, ...]) -> dict[str, str]:
    return {"components": ",".join(failed)} if failed else {}
