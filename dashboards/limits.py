"""Where panels draw their lines: the thresholds of the rules, at their defaults."""

from __future__ import annotations

from palegreen.catalogue.thresholds import thresholds


def limit(name: str) -> float:
    """The value of a threshold, in its unit. Raises KeyError."""
    return thresholds()[name].value
