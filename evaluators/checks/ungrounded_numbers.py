"""Numbers, dates and amounts in the answer that nothing given contains: the cheapest sign of a made-up fact.

Compared with the contexts and all messages, whatever the separators, the currency, the unit, or a step between per
cent and share or between thousand, million and billion; rounded numbers and months written as words count as given.
Fails: more than `allowed` others. The score is the share of numbers that are grounded. Not looked at: single digits,
numbering of lists and footnotes, fenced code, digits inside words. Skipped: neither contexts nor results of
tools, or no numbers. Sums and
differences are not recognised: allow some where answers calculate.
"""

from __future__ import annotations

import re
from functools import cached_property

from pydantic import Field

from palegreen.evaluators.checks.outcome import Outcome
from palegreen.evaluators.checks.view import View
from palegreen.runtime.settings import Section

# The digit comes first, so that the search skips to digits at once; then what may not stand before it.
_NUMBER = re.compile(r"[0-9](?<![\w.,].)[0-9]*(?:[.,'\u2019\u00a0\u202f ][0-9]{3}(?![0-9]))*(?:[.,][0-9]+)*")
_NUMBERING = re.compile(r"^[\s>*#-]*\(?[0-9]{1,3}[.):](?=\s)|\[[0-9]{1,3}\]", re.MULTILINE)
_MONTHS = {
    ("1", 1): ("oct", "okt", "ott", "out", "окт", "жовт", "paź", "eki", "říj"),
    ("11", 0): ("nov", "ноя", "лист", "lis", "kas"),
    ("12", 0): ("dec", "dez", "dic", "déc", "дек", "груд", "gru", "ara", "pros"),
}
_MARK = re.compile(r"[.,'\u2019\u00a0\u202f ]")
_POWERS = (0, 2, -2, 3, -3, 6, -6, 9, -9)
_MAX_GIVEN = 200_000
_MAX_DIGITS = 18

Number = tuple[str, int]
"""Digits without zeros around them, and the power of ten that the last stands for: 1,500 is ("15", 2)."""


class Settings(Section):
    """What the check can be told."""

    allowed: int = Field(0, ge=0, description="as many ungrounded numbers still pass")


def check(view: View, settings: Settings) -> Outcome | None:
    """Whether the answer's numbers come from what was given."""
    if not view.grounding:
        return None
    found = {token for token in _NUMBER.findall(_NUMBERING.sub(" ", view.prose)) if len(token) > 1}
    if not found:
        return None
    given = _Given(view.given[:_MAX_GIVEN])
    missing = sum(not any(all(map(given.holds, reading)) for reading in _readings(token)) for token in found)
    score = 1 - missing / len(found)
    if missing <= settings.allowed:
        return Outcome(True, score)
    return Outcome(False, score, f"{missing} of {len(found)} numbers are not in what was given")


class _Given:
    """The numbers of what was given."""

    def __init__(self, text: str) -> None:
        self._text = text
        tokens = set(_NUMBER.findall(text))
        self._numbers = {number for token in tokens for reading in _readings(token) for number in reading}

    @cached_property
    def _rounded(self) -> set[Number]:
        """The longer ones of them to any number of digits, at least two."""
        return {
            _number(str(int(digits[:kept]) + (digits[kept] >= "5")), power + len(digits) - kept)
            for digits, power in self._numbers
            if len(digits) <= _MAX_DIGITS
            for kept in range(2, len(digits))
        }

    def holds(self, number: Number) -> bool:
        """Whether a number is there, or follows from one that is."""
        digits, power = number
        return (
            (len(digits) == 1 and power == 0)
            or any((digits, power + step) in self._numbers for step in _POWERS)
            or any((century + digits, power) in self._numbers for century in ("19", "20"))  # a year of two digits
            or any((digits, power + step) in self._rounded for step in _POWERS)
            or any(name in self._text.lower() for name in _MONTHS.get(number, ()))
        )


def _readings(token: str) -> list[list[Number]]:
    """What may have been meant. Groups of three digits are one number, or several if blanks separate them; which of dot
    and comma separates thousands makes no difference, since that is a power of a thousand. A last part of another
    length is the decimals of one number; else dots separate the parts of a date or a version.
    """
    parts = _MARK.split(token)
    marks = [mark for mark in token if not mark.isdigit()]
    several = [_number(part, 0) for part in parts]
    if not marks:
        return [several]
    if len(parts[0]) <= 3 and all(len(part) == 3 for part in parts[1:]):
        whole = [_number("".join(parts), 0)]
        return [whole, several] if any(map(str.isspace, marks)) else [whole]
    grouped = len(parts) == 2 or (all(len(part) == 3 for part in parts[1:-1]) and marks[-1] not in marks[:-1])
    if grouped and marks[-1] in ".,":
        return [[_number("".join(parts), -len(parts[-1]))]]
    return [several]


def _number(digits: str, power: int) -> Number:
    plain = digits.strip("0")
    return (plain, power + len(digits) - len(digits.rstrip("0"))) if plain else ("0", 0)
