"""How much of the question the answer takes up, word for word.

The score is the share of the question's content words (four letters and more, numbers; pairs of letters where words
have no blanks) that the answer holds. Passes or fails only where `minimum` is set. Skipped: no question, or fewer
than three such words, or no answer.
"""

from __future__ import annotations

from pydantic import Field

from palegreen.evaluators.checks.outcome import Outcome, graded
from palegreen.evaluators.checks.view import View
from palegreen.runtime.settings import Section

_MIN_TERMS = 3


class Settings(Section):
    """What the check can be told."""

    minimum: float | None = Field(None, ge=0, le=1, description="lower scores fail")


def check(view: View, settings: Settings) -> Outcome | None:
    """The share of the question's words that the answer holds."""
    if not view.text or len(view.prompt_terms) < _MIN_TERMS:
        return None
    share = len(view.prompt_terms & view.terms) / len(view.prompt_terms)
    return graded(share, settings.minimum, "takes up few words of the question")
