"""Answers that were cut: by the limit of tokens, or because upstream stopped in the middle.

Fails: a finish reason that means the limit, one that says the engine gave the request up (`abort`, `cancelled`) while
the client was still there, or a response that was interrupted. A client that hangs up is no truncation: skipped, like
errors and unknown finish reasons.
"""

from __future__ import annotations

from palegreen.evaluators.checks.content_filter import FILTERED
from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.checks.view import ABORTED, FAILED, View

# OpenAI and engines; Responses API; Anthropic and Bedrock; Gemini; TGI and Mistral.
LIMITED = frozenset(("length", "max_output_tokens", "max_tokens", "MAX_TOKENS", "model_length"))


def check(view: View) -> Outcome | None:
    """Whether the model came to its own end."""
    sample = view.sample
    if sample.ended == "interrupted":
        return Outcome(False, None, "the stream broke off")
    reason = sample.finish_reason
    if sample.ended != "complete" or not reason or reason in FILTERED or reason in FAILED:
        return None
    if reason in ABORTED:
        return Outcome(False, None, "given up before its end")
    cut = reason in LIMITED
    return Outcome(not cut, None, "cut at the limit of tokens" if cut else "")
