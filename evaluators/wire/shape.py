"""Typed reading of parsed JSON: a value of another type reads as absent, so that no decoder trusts a sender."""

from __future__ import annotations

from typing import Any

_HUGE = 1e300


def text(value: object) -> str:
    """The value if it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def mapping(value: object) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def objects(value: object) -> list[dict[str, Any]]:
    """The objects of a list, empty if the value is none."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def texts(value: object) -> list[str]:
    """The non-empty strings of a list, or the one string."""
    if isinstance(value, str):
        value = [value]
    return [item for item in value if isinstance(item, str) and item] if isinstance(value, list) else []


def count(value: object) -> int | None:
    """The value if it is a whole number from 0 on that every store can hold, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else None


def number(value: object) -> float | None:
    """The value as a float if it is a finite number, else None."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and -_HUGE < value < _HUGE:
        return float(value)
    return None


def numbers(value: object) -> list[float]:
    """The numbers of a list; null among them (a token without a logprob) is left out."""
    return [found for item in value if (found := number(item)) is not None] if isinstance(value, list) else []
