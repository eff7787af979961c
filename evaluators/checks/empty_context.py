"""Retrieval that brought nothing: the share of failures is the empty-context rate.

Fails: every context is blank. Where `required` is set, because this service retrieves for each question, a sample
without any context fails too. Skipped: no contexts and none required (nothing says that there was a retrieval), and
errors.
"""

from __future__ import annotations

from pydantic import Field

from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.checks.view import View
from palegreen.runtime.settings import Section

_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad"


class Settings(Section):
    """What the check can be told."""

    required: bool = Field(False, description="a response without any context fails")


def check(view: View, settings: Settings) -> Outcome | None:
    """Whether there is anything in the contexts."""
    contexts = view.sample.contexts
    if not (contexts or settings.required) or not view.answered:
        return None
    if any(text.strip(_INVISIBLE).strip() for text in contexts):
        return Outcome(True)
    return Outcome(False, None, "every context is blank" if contexts else "no context")
