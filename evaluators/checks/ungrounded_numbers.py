"""Numbers, dates and amounts in the answer that nothing given contains: the cheapest sign of a made-up fact.

Compared with the contexts and all messages, whatever the separators, the currency, the unit, or a step between per
cent and share or between thousand, million and billion; rounded numbers and months written as words count as given.
Fails: more than `allowed` others. The score is the share of numbers that are grounded. Not looked at: single digits,
numbering of lists and footnotes, fenced code, digits inside words. Skipped: no contexts, or no numbers. Sums and
differences are not recognised: allow some where answers calculate.
"""

from __future__ import annotations

import re

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

Number = tuple[str, int]
"""Digits without zeros around them, and the power of ten that the last stands for: 1,500 is ("15", 2)."""


class Settings(Section):
    """What the check can be told."""

    allowed: int = Field(0, ge=0, description="as many ungrounded numbers still pass")


def check(view: View, settings: Settings) -> Outcome | None:
    """Whether the answer's numbers come from what was given."""
    if not view.context:
        return None
    found = frozenset(
        number for number in _numbers(_NUMBERING.sub(" ", view.prose)) if len(number[0]) > 1 or number[1] > 0
    )
    if not found:
        return None
    text = view.given[:_MAX_GIVEN]
    given = frozenset(_numbers(text))
    missing = [number for number in found if not _grounded(number, given) and not _is_month(number, text)]
    score = 1 - len(missing) / len(found)
    if len(missing) <= settings.allowed:
        return Outcome(True, score)
    return Outcome(False, score, f"{len(missing)} of {len(found)} numbers are not in what was given")


def _is_month(number: Number, text: str) -> bool:
    """Whether the number may stand for a month that the text names; those before October are single digits."""
    return any(name in text.lower() for name in _MONTHS.get(number, ()))


def _numbers(text: str) -> set[Number]:
    return {number for token in set(_NUMBER.findall(text)) for number in _readings(token)}


def _readings(token: str) -> list[Number]:
    """A number as it was meant: a dot or comma before one, two or four digits and more is the decimal point, before
    three it may be either, which differ by a power of a thousand. Several of them are dates, versions, lists: each
    part counts.
    """
    parts = _MARK.split(token)
    marks = [mark for mark in token if not mark.isdigit()]
    grouped = all(len(part) == 3 for part in parts[1:]) and len(parts[0]) <= 3
    if len(parts) == 1 or grouped:
        return [_number("".join(parts), 0)]
    decimal = len(parts) == 2 or (all(len(part) == 3 for part in parts[1:-1]) and marks[-1] not in marks[:-1])
    if decimal and marks[-1] in ".,":
        return [_number("".join(parts), -len(parts[-1]))]
    return [_number(part, 0) for part in parts]


def _number(digits: str, power: int) -> Number:
    plain = digits.lstrip("0").rstrip("0")
    if not plain:
        return "0", 0
    return plain, power + len(digits) - len(digits.rstrip("0"))


def _grounded(number: Number, given: frozenset[Number]) -> bool:
    digits, power = number
    if any((digits, power + step) in given for step in _POWERS):
        return True
    if (f"20{digits}", power) in given or (f"19{digits}", power) in given:
        return True  # a year of two digits
    return len(digits) > 1 and any(_rounds_to(other, at, digits, power) for other, at in given)


def _rounds_to(exact: str, power: int, digits: str, rounded_power: int) -> bool:
    """Whether a longer number is this one when rounded, up to the same steps of scale."""
    cut = len(exact) - len(digits)
    if cut <= 0 or rounded_power - (power + cut) not in _POWERS:
        return False
    kept = int(exact[: len(digits)])
    return int(digits) == kept + (exact[len(digits)] >= "5")
