"""How near the answer's meaning is to the contexts': the cosine of their embeddings.

The score is the cosine, below 0 as 0: unrelated texts lie about 0 and hardly ever far below, so half of the scale
would be empty if -1 were its foot. Passes or fails only where `minimum` is set, since what is usual depends on the
embedder. Skipped: without contexts, an answer, or an embedder.
"""

from __future__ import annotations

from pydantic import Field

from palegreen.evaluators.checks.outcome import Outcome, graded
from palegreen.evaluators.checks.view import View
from palegreen.runtime.settings import Section


class Settings(Section):
    """What the check can be told."""

    minimum: float | None = Field(None, ge=0, le=1, description="lower scores fail")


def check(view: View, settings: Settings) -> Outcome | None:
    """The cosine of answer and contexts."""
    cosine = view.cosine("response", "context")
    return None if cosine is None else graded(cosine, settings.minimum, "far from the context")
