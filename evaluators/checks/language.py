"""Answers in another language than the question.

Fails: fastText's lid.176 (docs of `lid`) is sure of both (0.7 or more) and they differ; languages that it confuses
count as one, and a long prompt may be of two languages, its beginning's and its end's. Spanish and Portuguese are such
languages in short texts alone: from 100 characters on they are told apart, if it is all but certain (0.95) of both.
With `expected`, the answer must be in one of those instead, whatever the question. Skipped: too few letters or too
unclear, JSON, and conversations that name a language or ask for a translation.
"""

from __future__ import annotations

from pydantic import Field

from palegreen.evaluators.checks.languages import names_a_language
from palegreen.evaluators.checks.lid import EXCERPT, Language, language_of
from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.checks.view import View
from palegreen.runtime.settings import Section

_SURE = 0.7
_SHORT_PROMPT = 30
_ALIKE = (
    "bs hr sh sl sr mk",
    "da nb nn no sv",
    "id ms jv su min",
    "cs sk",
    "be ru uk bg",
    "hi mr ne bh mai sa",
    "zh yue wuu ja",  # the model takes Japanese without kana for Chinese
    "es ca gl pt an ast oc",
    "de als nds lb bar",
    "it scn lmo pms vec nap sc co",
    "nl af li fy vls",
    "en sco simple",
    "ar arz fa ps ckb ur pnb azb",
    "tr az tk",
    "fr wa",
    "fi et",
)
# Of those that count as one, what a longer text tells apart; Galician has 0.9 as Spanish.
_IBERIAN = frozenset(("es", "pt"))
_CERTAIN = 0.95
_LONG = 100  # characters
_GROUP = {code: group.split()[0] for group in _ALIKE for code in group.split()}


class Settings(Section):
    """What the check can be told."""

    expected: list[str] = Field([], description="languages (ISO 639-1) of which the answer must be one, such as en")


def check(view: View, settings: Settings) -> Outcome | None:
    """Whether the answer is in the question's language."""
    if view.wants_json or not (view.sample.messages or settings.expected):
        return None
    answer = view.language
    if answer is None:
        return None
    asked: list[Language] = []
    if settings.expected:
        wanted = settings.expected
    else:
        asked = _asked(view)
        wanted = [language.code for language in asked if language.probability >= _SURE]
        if not wanted:
            return None
    if _group(answer.code) in map(_group, wanted) and not _iberian_swap(view, answer, asked):
        return Outcome(True)
    if answer.probability < _SURE or (not settings.expected and names_a_language(view.sample.messages)):
        return None
    return Outcome(False, None, f"in {answer.code}, expected {' or '.join(sorted(set(wanted)))}")


def _asked(view: View) -> list[Language]:
    """Languages of the question: of the last message, or of all of the user's where that is short."""
    prompt = view.prompt
    if len(prompt) < _SHORT_PROMPT:
        prompt = "\n".join(m["content"] for m in view.sample.messages if m["role"] == "user")
    parts = [prompt] if len(prompt) <= 2 * EXCERPT else [prompt[:EXCERPT], prompt[-EXCERPT:]]
    return [language for part in parts if (language := language_of(part)) is not None]


def _iberian_swap(view: View, answer: Language, asked: list[Language]) -> bool:
    """Whether Portuguese answers Spanish or the reverse, both texts long and beyond doubt."""
    codes = {language.code for language in asked}
    return (
        len(codes) == 1
        and codes | {answer.code} == _IBERIAN
        and all(language.probability >= _CERTAIN for language in (answer, *asked))
        and min(len(view.prose), len(view.prompt)) >= _LONG
    )


def _group(code: str) -> str:
    return _GROUP.get(code, code)
