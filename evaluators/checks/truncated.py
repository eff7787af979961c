"""Answers that were cut: by the limit of tokens, or because upstream stopped in the middle.

Fails: a finish reason that means the limit, or a response that was interrupted. A client that hangs up is no
truncation: skipped, like errors and unknown finish reasons.
"""

from __future__ import annotations

from palegreen.evaluators.checks.content_filter import FILTERED
from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.checks.view import View

# OpenAI and engines; Responses API; Anthropic and Bedrock; Gemini; TGI and Mistral.
LIMITED = frozenset(("length", "max_output_tokens", "max_tokens", "MAX_TOKENS", "model_length"))


def check(view: View) -> Outcome | None:
    """Whether the model came to its own end."""
    sample = view.sample
    if sample.ended == "interrupted":
        return Outcome(False, None, "the stream broke off")
    if sample.ended != "complete" or not sample.finish_reason or sample.finish_reason in FILTERED:
        return None
    cut = sample.finish_reason in LIMITED
    return Outcome(not cut, None, "cut at the limit of tokens" if cut else "")
