"""Reasoning that never ends, or leaves no answer.

Fails: a <think> that is not closed, a closing one without its beginning (the engine's parser lost it), an answer that
is empty after reasoning, more than `max_tokens` of reasoning, or a share above `max_share`. The score is 1 less the
share of reasoning in the output: tokens where usage tells them, else characters. Skipped: no reasoning; aborts.
"""

from __future__ import annotations

from pydantic import Field

from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.checks.view import View
from palegreen.runtime.settings import Section

_OPEN, _CLOSE = "<think>", "</think>"


class Settings(Section):
    """What the check can be told."""

    max_tokens: int | None = Field(None, ge=1, description="more tokens of reasoning fail, where usage tells them")
    max_share: float | None = Field(None, ge=0, le=1, description="a larger share of the output fails")


def check(view: View, settings: Settings) -> Outcome | None:
    """Whether reasoning ended and led to an answer."""
    sample, text = view.sample, view.text
    if not view.answered:
        return None
    if text.startswith(_OPEN):  # a closed one at the beginning is no part of the text
        return Outcome(False, 0.0, "reasoning was not closed")
    if _CLOSE in text and _OPEN not in text and _CLOSE not in view.given:
        return Outcome(False, None, "reasoning is in the answer")
    tokens = sample.reasoning_tokens or 0
    if not view.reasoning and not tokens:
        return None
    if not text and not sample.tool_calls:
        return Outcome(False, 0.0, "no answer after reasoning")
    share = _share(view, tokens)
    if settings.max_tokens is not None and tokens > settings.max_tokens:
        return Outcome(False, 1 - share, f"{tokens} tokens of reasoning, at most {settings.max_tokens} allowed")
    if settings.max_share is not None and share > settings.max_share:
        return Outcome(False, 1 - share, f"{share:.0%} of the output is reasoning")
    return Outcome(True, 1 - share)


def _share(view: View, tokens: int) -> float:
    """Share of reasoning in the output, in [0, 1]."""
    if tokens > 0 and view.sample.completion_tokens:
        return min(tokens / max(view.sample.completion_tokens, tokens), 1.0)
    thought = len(view.reasoning)
    spoken = len(view.text) + sum(len(call["arguments"]) for call in view.sample.tool_calls)
    return thought / (thought + spoken) if thought else 0.0
