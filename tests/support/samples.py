"""Scored samples for tests of the store and of what reads it."""

from __future__ import annotations

from typing import Any

from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.sample import Sample
from palegreen.evaluators.store.scored import Scored

PASSED = Outcome(True, 0.9)
REFUSED = Outcome(False, 0.1, "says that it cannot help")


def scored(number: int = 0, *, outcomes: dict[str, Outcome | None] | None = None, **fields: Any) -> Scored:
    """A sample with the id `r<number>`, that passed `refusal`, unless told otherwise."""
    given: dict[str, Any] = {"response": f"answer {number}", "id": f"r{number}", "model": "llama", "time": 1e9 + number}
    return Scored(Sample(**{**given, **fields}), {"refusal": PASSED, "json": None} if outcomes is None else outcomes)


def batch(size: int, first: int = 0, **fields: Any) -> list[Scored]:
    """Samples with consecutive numbers."""
    return [scored(number, **fields) for number in range(first, first + size)]
