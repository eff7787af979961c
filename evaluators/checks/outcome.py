"""What a check says of a sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

Result = Literal["pass", "fail", "skipped"]


class Outcome(NamedTuple):
    """`passed` is None where the check gives a score alone; `score` is in [0, 1], 1 best, None where it gives none.

    `why` is a few words for a person; it never quotes the text.
    """

    passed: bool | None
    score: float | None = None
    why: str = ""

    @property
    def result(self) -> Result:
        """The outcome as it is counted: what neither passed nor failed is skipped, whether it has a score or not."""
        return "skipped" if self.passed is None else "pass" if self.passed else "fail"


Check = Callable[..., Outcome | None]
"""A check: a function `(view: View)` or, where it has settings, `(view: View, settings: Settings)`.

None means that it does not apply (skipped).
"""


def graded(score: float, minimum: float | None, why: str) -> Outcome:
    """A score that passes or fails only where a minimum is set; `why` is said of a failure."""
    score = min(max(score, 0.0), 1.0)
    if minimum is None:
        return Outcome(None, score)
    passed = score >= minimum
    return Outcome(passed, score, "" if passed else f"{why} ({score:.2f}, at least {minimum:g} asked)")
