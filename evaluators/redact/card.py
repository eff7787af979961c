"""Numbers of payment cards: the issuer's prefix, the length, the grouping and the Luhn digit must all fit."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from palegreen.evaluators.redact.finder import Finder, Span, compiled


class Issuer(NamedTuple):
    """Range of prefixes (both ends included) and the lengths of its numbers, the longest first."""

    first: int
    last: int
    lengths: tuple[int, ...]


_16_19 = (19, 18, 17, 16)
_16 = (16,)
_12_19 = tuple(range(19, 11, -1))

# ISO/IEC 7812 ranges as the schemes publish them (collected in Wikipedia, "Payment card number").
ISSUERS = (
    Issuer(4, 4, (19, 16, 13)),  # Visa
    Issuer(51, 55, _16),  # Mastercard
    Issuer(2221, 2720, _16),  # Mastercard
    Issuer(34, 34, (15,)),  # American Express
    Issuer(37, 37, (15,)),
    Issuer(6011, 6011, _16_19),  # Discover
    Issuer(644, 659, _16_19),  # Discover, RuPay, Verve, Elo
    Issuer(300, 305, (19, 16, 14)),  # Diners Club
    Issuer(3095, 3095, (19, 16, 14)),
    Issuer(36, 36, (19, 16, 14)),
    Issuer(38, 39, (19, 16, 14)),
    Issuer(3528, 3589, _16_19),  # JCB
    Issuer(62, 62, _16_19),  # UnionPay
    Issuer(81, 82, _16_19),  # UnionPay, RuPay
    Issuer(60, 60, _16),  # RuPay
    Issuer(508, 508, _16),
    Issuer(5018, 5018, _12_19),  # Maestro
    Issuer(5020, 5020, _12_19),
    Issuer(5038, 5038, _12_19),
    Issuer(5893, 5893, _12_19),
    Issuer(6304, 6304, _12_19),
    Issuer(6759, 6763, _12_19),
    Issuer(506099, 506198, _16_19),  # Verve
    Issuer(2200, 2204, _16_19),  # Mir
    Issuer(9792, 9792, _16),  # Troy
)

# Issuers by the first two digits, so that most digits need no further look.
_BY_START = {
    b"%02d" % start: tuple(
        issuer for issuer in ISSUERS if int(f"{issuer.first:<06d}"[:2]) <= start <= int(f"{issuer.last:9<6}"[:2])
    )
    for start in range(10, 100)
}

_RUN = compiled(r"\d(?:[ .-]{0,2}\d){11,}")
# A number that a line's end breaks, with the digits of both lines. One of the two has six at least.
_BREAK = r"[ -]?\r?\n {0,4}"
_MORE = r"(?:[ .-]{0,2}\d)"
_BROKEN = compiled(rf"\d{_MORE}*{_BREAK}\d{_MORE}*")
_LINE_BEFORE = re.compile(rb"\d[ -]?\r?\n {0,4}\Z")
_LINE_AFTER = re.compile(_BREAK.encode() + rb"\d")
_GROUP = re.compile(rb"\d+")
_NOT_DIGITS = bytes(byte for byte in range(256) if not 48 <= byte < 58)
_DOUBLED = bytes.maketrans(b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))
_PLAIN = bytes.maketrans(b"0123456789", bytes(range(10)))
_TRIPLED = bytes.maketrans(b"0123456789", bytes(range(0, 30, 3)))
_AROUND = 40
_WORD_BEFORE = re.compile(rb"[A-Za-z0-9]*\Z")
_WORD_AFTER = re.compile(rb"[A-Za-z0-9]*")
_GROUPINGS = ((4, 6, 5), (4, 6, 4), (6, 13))


def luhn(digits: bytes) -> bool:
    """Whether the last digit is right (ISO/IEC 7812-1, annex B)."""
    return (sum(digits[::-2].translate(_PLAIN)) + sum(digits[-2::-2].translate(_DOUBLED))) % 10 == 0


def _is_barcode(digits: bytes) -> bool:
    """Whether the last digit is right for an EAN-13; German ones begin with 4, as Visa's do."""
    return len(digits) == 13 and (sum(digits[::2].translate(_PLAIN)) + sum(digits[1::2].translate(_TRIPLED))) % 10 == 0


def _grouped_as_card(sizes: Sequence[int]) -> bool:
    even = len(set(sizes[:-1])) < 2 and sizes[-1] <= sizes[0]
    return even or tuple(sizes) in _GROUPINGS


def _part_of_other(data: bytes, start: int, end: int) -> bool:
    """Whether the digits belong to a decimal number or to an identifier with further digits."""
    left = _WORD_BEFORE.search(data[max(0, start - _AROUND) : start])
    right = _WORD_AFTER.match(data, end, end + _AROUND)
    letters = (left.group() if left else b"") + (right.group() if right else b"")
    if any(48 <= byte < 58 for byte in letters):
        return True
    fraction = data[start - 1 : start] in (b".", b",") and data[max(0, start - 2) : start - 1].isdigit()
    amount = data[end : end + 1] in (b".", b",") and data[end + 1 : end + 2].isdigit()
    return fraction or amount


def _find(data: bytes) -> Iterator[Span]:
    yield from _unbroken(data)
    for match in _BROKEN.finditer(data):
        # Longer columns of digits are tables.
        start, end = match.span()
        if not _LINE_BEFORE.search(data[max(0, start - 8) : start]) and not _LINE_AFTER.match(data, end):
            yield from _broken(data, start, end)


def _broken(data: bytes, start: int, end: int) -> Iterator[Span]:
    """The card that begins with the digits at `start` and ends on the next line."""
    line = data.index(b"\n", start, end)
    groups = [group.span() for group in _GROUP.finditer(data, start, end)]
    ends = list(accumulate(stop - begin for begin, stop in groups))
    first = sum(begin < line for begin, _ in groups)  # groups on the first line
    digits = data[start:end].translate(None, _NOT_DIGITS)
    for size in _sizes(digits, 0):
        if size not in ends[first:] or not luhn(digits[:size]):
            continue
        sizes = [stop - begin for begin, stop in groups[: ends.index(size) + 1]]
        joined = [*sizes[: first - 1], sizes[first - 1] + sizes[first], *sizes[first + 1 :]]
        span = start, groups[len(sizes) - 1][1]
        if (_grouped_as_card(sizes) or _grouped_as_card(joined)) and not _part_of_other(data, *span):
            yield span
            return


def _unbroken(data: bytes) -> Iterator[Span]:
    for match in _RUN.finditer(data):
        start, end = match.span()
        digits = data[start:end].translate(None, _NOT_DIGITS)
        groups = [group.span() for group in _GROUP.finditer(data, start, end)]
        begins = [0, *accumulate(stop - begin for begin, stop in groups)]  # in `digits`, and the end of the last
        done = 0
        for first, begin in enumerate(begins[:-1]):
            # Digits in ones and twos are a card only if there is nothing else: long tables are made of such groups.
            if begin < done or (first and begins[first + 1] - begin <= 2):
                continue
            for size in _sizes(digits, begin):
                last = bisect_left(begins, begin + size) - 1
                if last + 1 == len(begins) or begins[last + 1] != begin + size:
                    continue  # a group would be cut
                number = digits[begin : begin + size]
                if not luhn(number) or _is_barcode(number):
                    continue
                grouping = [stop - begin for begin, stop in groups[first : last + 1]]
                span = groups[first][0], groups[last][1]
                if _grouped_as_card(grouping) and not _part_of_other(data, *span):
                    yield span
                    done = begin + size
                    break


def _sizes(digits: bytes, begin: int) -> Iterator[int]:
    """Lengths that a card can have whose digits begin there, the longest first."""
    for issuer in _BY_START.get(digits[begin : begin + 2], ()):
        if issuer.first <= int(digits[begin : begin + len(str(issuer.first))]) <= issuer.last:
            yield from issuer.lengths


_HINT = rf"\d{_MORE}{{11}}|\d{_MORE}{{5}}{_BREAK}\d|\d{_BREAK}\d{_MORE}{{5}}"

FINDER = Finder("card", _HINT, _find)
