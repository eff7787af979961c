"""How near the contexts' meaning is to the question's: the cosine of their embeddings.

Low where retrieval brings passages about something else. The score is the cosine, below 0 as 0, as `context_cosine` has
it. Passes or fails only where `minimum` is set, since what is usual depends on the embedder. Skipped: without a
question, contexts, or an embedder.
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
    """The cosine of question and contexts."""
    cosine = view.cosine("prompt", "context")
    return None if cosine is None else graded(cosine, settings.minimum, "the context is far from the question")
