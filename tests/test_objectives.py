"""Objectives: which buckets are below a limit, and what a configuration declares, through promtool."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palegreen.alerts.rules.bounds import LEAST, MOST, below


def _numbers(least: str, most: str) -> st.SearchStrategy[float]:
    return st.decimals(least, most, allow_nan=False, places=6).map(float)


def _spelled(number: float) -> set[str]:
    """As Python, Go (`g` and OpenMetrics), Java and plain decimals write it."""
    plain = format(Decimal(repr(number)), "f")
    spelled = {plain, plain.removesuffix(".0"), f"{plain}0" if "." in plain else f"{plain}.0"}
    if 0 < number < 1e-3:  # else nobody writes an exponent that is negative
        mantissa, exponent = f"{number:e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".")
        spelled |= {f"{mantissa}e{exponent}", f"{mantissa if '.' in mantissa else mantissa + '.0'}E{int(exponent)}"}
    return spelled


@given(_numbers("0.001", "99999"), _numbers("0", "999999"))
def test_a_bound_is_below_a_limit_if_its_number_is(limit: float, bound: float) -> None:
    for text in _spelled(bound):
        assert bool(re.fullmatch(below(limit), text)) == (bound < limit), text


@given(_numbers("0.001", "99999"))
def test_a_limit_is_not_below_itself_and_its_neighbours_are_told_apart(limit: float) -> None:
    for bound in (limit, round(limit + 1e-6, 6), round(limit - 1e-6, 6)):
        for text in _spelled(bound):
            assert bool(re.fullmatch(below(limit), text)) == (bound < limit), text


@pytest.mark.parametrize("text", ["+Inf", "1e+06", "1e+16", "1.5e+06"])
def test_what_no_limit_reaches_is_not_below(text: str) -> None:
    assert not re.fullmatch(below(999999.0), text)


@pytest.mark.parametrize("limit", [0.0, -1.0, LEAST / 2, MOST, float("inf"), float("nan")])
def test_a_limit_that_cannot_be_written_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match=r"allowed: a limit from 0.001 up to 1e\+06"):
        below(limit)
