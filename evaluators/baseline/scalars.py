"""Scores and scalar channels as evidence: how far beyond the usual a value lies, from 0 to 1, for the e-detectors.

A score that is usually 0.3 has no room to fall by a tolerance of a quarter of what is lost; how far it lies beyond its
own median has.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

WATCHED = ("energy", "distance")
"""The scalar channels that speak of the response. Those of the prompt would page for what users ask."""
Usual = tuple[float, float]
"""The median, and how far beyond it a value counts as 1."""
_HIGH = 0.995
_NARROWEST = 0.05
"""Of scores that hardly differ, less than this is no difference either."""


def usual(values: NDArray[Any]) -> Usual:
    """Of values of which high ones are bad: 1 is at the 99.5th percentile; further out, bounds would be wider."""
    median, high = np.quantile(values, (0.5, _HIGH))
    return float(median), float(max(high - median, _NARROWEST))


def bounded(values: NDArray[Any], of: Usual) -> NDArray[np.float64]:
    """0 up to the median, 1 at its reach and beyond."""
    median, reach = of
    return np.clip((np.asarray(values, np.float64) - median) / reach, 0.0, 1.0)
