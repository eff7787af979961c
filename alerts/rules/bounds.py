"""Which buckets of a histogram lie below a limit, whatever bounds an engine chose: a pattern for the label `le`."""

from __future__ import annotations

from decimal import Decimal


def at_most(limit: float) -> str:
    """A regular expression (RE2) of the decimal numbers of `le`, such as 0.25, 1.0, 5e-05, up to `limit`."""
    whole, _, fraction = format(Decimal(repr(limit)).normalize(), "f").partition(".")
    patterns = [*_below(whole), rf"{whole}(\\.0*)?"]
    for at, digit in enumerate(fraction):
        before = fraction[:at]
        if digit != "0":
            patterns.append(rf"{whole}\\.{before}[0-{int(digit) - 1}][0-9]*")
    if fraction:
        patterns.append(rf"{whole}\\.{fraction}0*")
        patterns += [rf"{whole}\\.{fraction[:at]}" for at in range(1, len(fraction))]
    return "|".join([*patterns, r"[0-9.]+e-[0-9]+"])


def _below(whole: str) -> list[str]:
    """Patterns of the numbers whose part before the point is less than `whole`."""
    any_fraction = r"(\\.[0-9]*)?"
    patterns = [rf"[0-9]{{{length}}}{any_fraction}" for length in range(1, len(whole))]
    for at, digit in enumerate(whole):
        least = 1 if at == 0 and len(whole) > 1 else 0
        if int(digit) > least:
            rest = rf"[0-9]{{{len(whole) - at - 1}}}" if len(whole) - at - 1 else ""
            patterns.append(rf"{whole[:at]}[{least}-{int(digit) - 1}]{rest}{any_fraction}")
    return patterns
