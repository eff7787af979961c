"""Names in the answer that nothing given contains: people, places and products that the model made up.

A name is a word of Latin or Cyrillic script with a capital that follows a word without one, so that beginnings of
sentences, headings and labels are none; inflected forms count by their beginning. Fails: more than `allowed` others.
The score is the share of names that are grounded. Skipped: neither contexts nor results of tools, no names, and
German, which writes every noun like a name. Not looked at: acronyms, days, months, and fenced code.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator

from pydantic import Field

from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.checks.view import View
from palegreen.runtime.settings import Section

_UPPER = "A-ZÀ-ÖØ-ÞĄĆĘŁŃŚŹŻČĎĚŇŘŠŤŮŽĞİŞŐŰȘȚА-ЯЁІЇЄҐ"
_NAME = re.compile(rf"[{_UPPER}](?<!\w.)[\w'\u2019-]*[^\W\d_{_UPPER}](?: [{_UPPER}][\w'\u2019-]*[^\W\d_{_UPPER}])*")
_LOOK_BACK = 40  # characters before a name in which the word before it lies
_PART = re.compile(r"[^\W\d_]{2,}")
_GERMAN = frozenset(
    ("der", "die", "das", "und", "ist", "nicht", "ein", "eine", "mit", "für", "auf", "den", "von", "zu")
)
_GERMAN_WORDS = 4
_NO_NAMES = frozenset(map(str.lower, (*calendar.month_name, *calendar.day_name))) | {
    "english",
    "internet",
    "dr",
    "prof",
}
_PREFIX = 4
_ENDING = 3  # letters that inflection changes, at most


class Settings(Section):
    """What the check can be told."""

    allowed: int = Field(1, ge=0, description="as many ungrounded names still pass")


def check(view: View, settings: Settings) -> Outcome | None:
    """Whether the answer's names come from what was given."""
    if not view.grounding or len(_GERMAN.intersection(view.words)) >= _GERMAN_WORDS:
        return None
    names = set(_PART.findall(" ".join(_names(view.prose)).lower())) - _NO_NAMES
    if not names:
        return None
    missing = {name for name in names - view.given_words if not _inflected(name, view.given_words)}
    score = 1 - len(missing) / len(names)
    if len(missing) <= settings.allowed:
        return Outcome(True, score)
    return Outcome(False, score, f"{len(missing)} of {len(names)} names are not in what was given")


def _names(text: str) -> Iterator[str]:
    for found in _NAME.finditer(text):
        start = found.start()
        before = text[max(start - _LOOK_BACK, 0) : start]
        if not before.endswith(" "):
            continue
        word = before.rpartition("\n")[2].rstrip(" ,").rpartition(" ")[2]
        if word[:1].islower() and word[-1:].isalpha():
            yield found[0]


def _inflected(name: str, given: frozenset[str]) -> bool:
    stem = name[: max(_PREFIX, len(name) - _ENDING)]
    return len(name) >= _PREFIX and any(word.startswith(stem) and len(word) <= len(name) + _ENDING for word in given)
