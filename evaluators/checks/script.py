"""Letters of a writing system that nobody used: Thai in an English answer, Chinese in a Korean one.

Seen when requests reach a wrong or broken replica. Known scripts are those of the prompt, the conversation, the system
prompt and the contexts, Latin, and `expected`; if nothing was given, the answer's own main one. Fails: other scripts
hold more than `max_share` of the letters and at least four of them (two of Chinese, Japanese or Korean, where one is a
syllable or a word). Letters in brackets, quotes or code do not count: that is how a foreign name is given. The score
is 1 less the share. Skipped: fewer than 20 letters, and conversations that name a language or ask for a translation.
"""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from palegreen.evaluators.checks.languages import names_a_language
from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.checks.scripts import NAMES, letters_by_script, scripts_of
from palegreen.evaluators.checks.view import View
from palegreen.runtime.settings import Section

_MIN_LETTERS = 20
_MIN_FOREIGN = 4
_DENSE = frozenset(("Han", "Kana", "Hangul"))  # a letter says as much as two or more of an alphabet's
_NEUTRAL = frozenset(("Latin", "Greek", "IPA"))  # names and code; formulas; pronunciation
_ASIDE = re.compile(
    r"`[^`\n]*`|[(\[\uff08【「『《][^)\]\uff09】」』》\n]{1,80}[)\]\uff09】」』》]|[\"“„«][^\"“”»\n]{1,80}[\"”“»]"
)


class Settings(Section):
    """What the check can be told."""

    max_share: float = Field(0.01, ge=0, le=1, description="share of letters in unknown scripts that still passes")
    expected: list[str] = Field([], description="scripts that are always right, such as Han")

    @field_validator("expected")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in NAMES:
                raise ValueError(f"got {name!r}; allowed: {', '.join(sorted(NAMES))}")
        return names


def check(view: View, settings: Settings) -> Outcome | None:
    """Whether all letters belong to scripts that are to be expected."""
    prose = view.prose
    if prose.isascii():
        return Outcome(True, 1.0) if sum(map(len, view.words)) >= _MIN_LETTERS else None
    counts = view.scripts
    letters = sum(counts.values())
    if letters < _MIN_LETTERS:
        return None
    given = scripts_of(view.given)
    known = _NEUTRAL | given | frozenset(settings.expected)
    if not given:
        known |= {max(counts, key=counts.__getitem__)}
    if "Kana" in known:
        known |= {"Han"}
    if counts.keys() <= known:
        return Outcome(True, 1.0)
    counts = letters_by_script(_ASIDE.sub(" ", prose))
    foreign = {script: count for script, count in counts.items() if script not in known}
    found = sum(foreign.values())
    weight = sum(count * (2 if script in _DENSE else 1) for script, count in foreign.items())
    share = found / letters
    if weight < _MIN_FOREIGN or share <= settings.max_share:
        return Outcome(True, 1 - share)
    if names_a_language(view.sample.messages):
        return None
    return Outcome(False, 1 - share, f"{found} letters of {', '.join(sorted(foreign))}")
