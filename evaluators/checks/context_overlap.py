"""How much of the answer stands in the contexts, word for word.

The score is the share of the answer's content words (four letters and more, numbers; pairs of letters where words
have no blanks) that the contexts hold. Passes or fails only where `minimum` is set. Skipped: no contexts, or fewer
than five such words.
"""

from __future__ import annotations

from pydantic import Field

from palegreen.evaluators.checks.outcome import Outcome, graded
from palegreen.evaluators.checks.view import View
from palegreen.runtime.settings import Section

_MIN_TERMS = 5


class Settings(Section):
    """What the check can be told."""

    minimum: float | None = Field(None, ge=0, le=1, description="lower scores fail")


def check(view: View, settings: Settings) -> Outcome | None:
    """The share of the answer's words that the contexts hold."""
    if not view.context or len(view.terms) < _MIN_TERMS:
        return None
    share = len(view.terms & view.context_terms) / len(view.terms)
    return graded(share, settings.minimum, "few of its words are in the context")
