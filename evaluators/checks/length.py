"""Answers that are much shorter or longer than usual.

Against the baseline's quantiles of word counts (channel `words`): fails outside its lowest and highest quantile, each
widened by a factor of two, because quantiles at the ends are estimated from few samples; the score is 1 at the median
and 0 at either end. `min_words` and `max_words` hold whether there is a baseline or not. Without either: skipped, as
are tool calls alone and responses that the model did not end itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import Field

from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.checks.view import View
from palegreen.runtime.settings import Section

_SLACK = 2.0


class Settings(Section):
    """What the check can be told."""

    min_words: int | None = Field(None, ge=0, description="fewer words fail")
    max_words: int | None = Field(None, ge=1, description="more words fail")


def check(view: View, settings: Settings) -> Outcome | None:
    """Whether the number of words is within what is usual or configured."""
    quantiles = view.baseline.get("words")
    if not view.answered or (not view.text and view.sample.tool_calls):
        return None
    if not quantiles and settings.min_words is None and settings.max_words is None:
        return None
    words = view.word_count
    score, low, high = _placed(words, quantiles) if quantiles else (None, 0.0, float("inf"))
    if settings.min_words is not None:
        low = settings.min_words
    if settings.max_words is not None:
        high = settings.max_words
    if low <= words <= high:
        return Outcome(True, score)
    return Outcome(False, score, f"{words} words, " + (f"at least {low:g}" if words < low else f"at most {high:g}"))


def _placed(words: int, quantiles: Mapping[str, float]) -> tuple[float, float, float]:
    """Score, least and most words for quantiles by probability."""
    points = sorted((float(probability), float(value)) for probability, value in quantiles.items())
    probabilities, values = zip(*points, strict=True)
    rank = float(np.interp(words, values, probabilities, left=0.0, right=1.0))
    return 2 * min(rank, 1 - rank), values[0] / _SLACK, values[-1] * _SLACK
