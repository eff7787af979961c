"""Responses of another model than the one that was asked for: a fallback, a route gone wrong, a silent swap.

Fails: the two names differ after what is no difference: case, the folder or provider before the last `/`, a date or
`latest` behind the name (`gpt-4o` is served as `gpt-4o-2024-08-06`), `.gguf`. A precision is a difference
(`-AWQ`, `-FP8`). Azure's `gpt-35` is `gpt-3.5`. `aliases` says which model stands behind a name of one's own. Skipped:
either name is unknown, `default` was asked for and is no alias, or the request failed.
"""

from __future__ import annotations

import re
from functools import lru_cache

from pydantic import Field

from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.checks.view import View
from palegreen.runtime.settings import Section

_ANY = "default"
_DATED = re.compile(r"(?:[-@:](?:\d{4}-\d{2}-\d{2}|\d{8}|\d{6}|\d{4}|latest))+$")


class Settings(Section):
    """What the check can be told."""

    aliases: dict[str, str] = Field({}, description="model behind a name that requests use, such as chat: Qwen3-8B")


def check(view: View, settings: Settings) -> Outcome | None:
    """Whether the model that answered is the one that was asked for."""
    sample = view.sample
    asked, served = sample.requested_model, sample.model
    failed = sample.error or sample.ended == "error" or (sample.status is not None and sample.status >= 400)
    if not asked or not served or failed or (asked == _ANY and asked not in settings.aliases):
        return None
    if asked == served or same(asked, served) or same(settings.aliases.get(asked, asked), served):
        return Outcome(True)
    return Outcome(False, None, "another model than requested")


@lru_cache(maxsize=1024)
def same(asked: str, served: str) -> bool:
    """Whether two names mean one model. A date that was asked for must be the date that was served."""
    asked, served = _bare(asked), _bare(served)
    return asked == served or _DATED.sub("", served) == asked


def _bare(name: str) -> str:
    bare = (
        name.strip()
        .rstrip("/")
        .rpartition("/")[2]
        .lower()
        .removesuffix(".gguf")
        .removesuffix("-latest")
        .removesuffix(":latest")
    )
    return f"gpt-3.5{bare[6:]}" if bare.startswith("gpt-35") else bare
