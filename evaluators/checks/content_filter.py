"""Answers that a content filter stopped or took away.

Fails: a finish reason that says so, as providers spell it. Skipped: the finish reason is unknown.
"""

from __future__ import annotations

from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.checks.view import View

# OpenAI and Azure; Gemini; Bedrock.
FILTERED = frozenset(
    (
        "content_filter",
        "content_filtered",
        "guardrail_intervened",
        "SAFETY",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "RECITATION",
    )
)


def check(view: View) -> Outcome | None:
    """Whether the answer got past the filter."""
    reason = view.sample.finish_reason
    if not reason:
        return None
    filtered = reason in FILTERED
    return Outcome(not filtered, None, "stopped by a content filter" if filtered else "")
