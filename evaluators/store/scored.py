"""A sample with what the checks said of it, as the store takes it and as it is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.sample import Sample
from palegreen.evaluators.wire.jsonl import to_record

Result = Literal["pass", "fail", "unscored"]


@dataclass(frozen=True, slots=True)
class Scored:
    """A redacted sample and the outcome of each check by name, None where a check does not apply.

    `embedder` is the digest of the embedder that the scores rest on, empty without one. Vectors are not kept: whoever
    needs them embeds the same text by the same embedder again.
    """

    sample: Sample
    outcomes: Mapping[str, Outcome | None]
    embedder: str = ""

    @property
    def failed(self) -> list[str]:
        """Names of the checks that failed."""
        return [name for name, outcome in self.outcomes.items() if outcome is not None and outcome.passed is False]

    @property
    def result(self) -> Result:
        """`fail` if a check failed, `pass` if one passed and none failed, else `unscored`."""
        passed = {outcome.passed for outcome in self.outcomes.values() if outcome is not None}
        return "fail" if False in passed else "pass" if True in passed else "unscored"

    def record(self) -> dict[str, Any]:
        """The recorded sample plus `scores` and `embedder`."""
        record = to_record(self.sample)
        if self.outcomes:
            record["scores"] = {name: _entry(outcome) for name, outcome in self.outcomes.items()}
        if self.embedder:
            record["embedder"] = self.embedder
        return record


def _entry(outcome: Outcome | None) -> dict[str, Any] | None:
    if outcome is None:
        return None
    entry: dict[str, Any] = {"passed": outcome.passed}
    if outcome.score is not None:
        entry["score"] = outcome.score
    if outcome.why:
        entry["why"] = outcome.why
    return entry
