"""Empty answers: nothing but blanks, and no tool call either.

Fails: a complete response without a single visible character. Zero-width characters and blanks of any kind are none.
Skipped: errors, aborts, filtered and cut responses, where something else explains it.
"""

from __future__ import annotations

from palegreen.evaluators.checks.content_filter import FILTERED
from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.checks.view import View

_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad"


def check(view: View) -> Outcome | None:
    """Whether there is an answer at all."""
    sample = view.sample
    if not view.answered or sample.finish_reason in FILTERED:
        return None
    if sample.tool_calls or view.text.strip(_INVISIBLE).strip():
        return Outcome(True)
    return Outcome(False, None, "nothing after the reasoning" if view.reasoning else "no text and no tool call")
