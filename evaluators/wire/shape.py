"""Typed reading of parsed JSON: a value of another type reads as absent, so that no decoder trusts a sender."""

from __future__ import annotations

from typing import Any


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
    """The value if it is a whole number from 0 on, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def numbers(value: object) -> list[float]:
    """The numbers of a list; null among them (a token without a logprob) is left out."""
    if not isinstance(value, list):
        return []
    return [float(item) for item in value if isinstance(item, (int, float)) and not isinstance(item, bool)]
