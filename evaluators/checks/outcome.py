"""What a check says of a sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from palegreen.evaluators.checks.view import View


class Outcome(NamedTuple):
    """`passed` is None where the check gives a score alone; `score` is in [0, 1], 1 best, None where it gives none.

    `why` is a few words for a person; it never quotes the text.
    """

    passed: bool | None
    score: float | None = None
    why: str = ""


Check = Callable[["View"], Outcome | None]
"""A check: a function of a view; None means that it does not apply (skipped)."""
