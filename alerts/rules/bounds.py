"""Which buckets of a histogram lie below a limit, whatever bounds an engine chose: a pattern for the label `le`."""

from __future__ import annotations

from decimal import Decimal

LEAST, MOST = 0.001, 1e6
"""Limits for which `below` is right: beyond, numbers are written with an exponent by some and without by others."""


def below(limit: float) -> str:
    """A regular expression (RE2, anchored as PromQL does) of the numbers in `le` that are less than `limit`.

    They may be written as 0.25, 1, 1.0, 5e-05 or 1.0E-4. Raises ValueError if the limit is not in [LEAST, MOST).
    """
    if not LEAST <= limit < MOST:
        raise ValueError(f"got {limit!r}; allowed: a limit from {LEAST} up to {MOST:g}")
    whole, _, fraction = format(Decimal(repr(float(limit))).normalize(), "f").partition(".")
    patterns = _less(whole)
    if fraction:
        patterns.append(rf"{whole}([.]0*)?")
    for at, digit in enumerate(fraction):
        before = fraction[:at]
        if before.strip("0"):
            patterns.append(rf"{whole}[.]{before}0*")
        if digit != "0":
            patterns.append(rf"{whole}[.]{before}[0-{int(digit) - 1}][0-9]*")
    return "|".join([*patterns, "[0-9.]+[eE]-[0-9]+"])


def _less(whole: str) -> list[str]:
    """Patterns of the numbers whose part before the point is less than `whole`."""
    any_fraction = "([.][0-9]*)?"
    patterns = [rf"[0-9]{{{length}}}{any_fraction}" for length in range(1, len(whole))]
    for at, digit in enumerate(whole):
        least = 1 if at == 0 and len(whole) > 1 else 0
        if int(digit) > least:
            rest = rf"[0-9]{{{len(whole) - at - 1}}}" if len(whole) - at - 1 else ""
            patterns.append(rf"{whole[:at]}[{least}-{int(digit) - 1}]{rest}{any_fraction}")
    return patterns
