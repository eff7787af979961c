"""How sure the model was of its words: the mean log probability of its tokens.

The score is exp(mean), the geometric mean of the tokens' probabilities (1 / perplexity). Passes or fails only where
`minimum` is set. -inf scores 0, and so does one -9999,
which is how vLLM writes it, among few tokens. Skipped: no log probabilities, or one that is not a
number.
"""

from __future__ import annotations

from math import exp, isnan

from pydantic import Field

from palegreen.evaluators.checks.outcome import Outcome, graded
from palegreen.evaluators.checks.view import View
from palegreen.runtime.settings import Section


class Settings(Section):
    """What the check can be told."""

    minimum: float | None = Field(None, ge=0, le=1, description="lower scores fail; 0.2 is a perplexity of 5")


def check(view: View, settings: Settings) -> Outcome | None:
    """The geometric mean of the tokens' probabilities."""
    mean = view.sample.mean_logprob
    if mean is None and view.sample.logprobs:
        mean = sum(view.sample.logprobs) / len(view.sample.logprobs)
    if mean is None or isnan(mean):
        return None
    return graded(exp(min(mean, 0.0)), settings.minimum, "unsure of its words")
