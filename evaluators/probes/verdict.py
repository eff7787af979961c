"""Whether an answer passes: its nearness to the recorded ones, against how near these are to each other.

An engine is not quite deterministic at temperature 0 either: batches of another size add up in another order. So a
case is as strict as its recorded repeats agree, and nothing is required that they do not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from palegreen.evaluators.probes.compare import COMPONENTS, Answered, Component, Embed, compare, is_tie
from palegreen.evaluators.probes.reference import Case

TOLERANCE: dict[Component, float] = {"edit": 0.1, "embedding": 0.05, "first_token": 0.05, "logprob": 0.05}
"""What is allowed beyond the spread: of a handful of repeats the next is not always within their range."""
_NUMBERS: tuple[Component, ...] = ("first_token", "logprob")


class Verdict(NamedTuple):
    """Components of an answer (the best over the recorded answers), and which of those that are judged are too low."""

    components: dict[Component, float]
    failed: tuple[Component, ...]
    score: float
    """The worst component that is judged; 1 is as recorded."""


class Judge:
    """Judges answers to one case. What it requires is worked out when it is needed first."""

    def __init__(self, case: Case, embed: Embed) -> None:
        self._case = case
        self._embed = embed
        self._texts = {answer.text for answer in case.greedy}
        self._required: dict[bool, dict[Component, float]] = {}

    def judge(self, answer: Answered) -> Verdict:
        """The verdict on one answer at temperature 0."""
        known = answer.text in self._texts
        components = _best(answer, self._case.greedy, self._embedding(known))
        required = self.required(known)
        if not known and any(is_tie(answer, recorded) for recorded in self._case.greedy):
            # Another batch may have chosen the other token, and what follows is another text.
            required = {component: least for component, least in required.items() if component in _NUMBERS}
        judged = [component for component in COMPONENTS if component in required and component in components]
        failed = tuple(component for component in judged if components[component] < required[component])
        return Verdict(components, failed, min((components[component] for component in judged), default=1.0))

    def required(self, known: bool) -> dict[Component, float]:
        """Least value of each component: the farthest of the repeats from all others, as far again, and a tolerance.

        The very text is required only where all repeats are the same. `known`: of a text that was recorded.
        """
        if known not in self._required:
            repeats, embed = self._case.greedy, self._embedding(known)
            among = [_best(one, [other for other in repeats if other is not one], embed) for one in repeats]
            required: dict[Component, float] = {"exact": 1.0} if len(self._texts) == 1 else {}
            for component, tolerance in TOLERANCE.items():
                if seen := [each[component] for each in among if component in each]:
                    required[component] = max(0.0, 1 - 2 * (1 - min(seen)) - tolerance)
            self._required[known] = required
        return self._required[known]

    def _embedding(self, known: bool) -> Embed:
        """The embedder is loaded only for a text that is new."""
        return _no_embedder if known else self._embed


def _no_embedder(_text: str) -> None:
    return None


def _best(answer: Answered, recorded: Sequence[Answered], embed: Embed) -> dict[Component, float]:
    """Each component's best over several recorded answers."""
    best: dict[Component, float] = {}
    for each in recorded:
        for component, value in compare(answer, each, embed).items():
            best[component] = max(best.get(component, 0.0), value)
    return best
