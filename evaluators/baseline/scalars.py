"""Scalar channels as scores: how far beyond the usual a value lies, from 0 to 1, so that e-detectors can watch them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

WATCHED = ("energy", "distance")
"""The channels that speak of the response. Those of the prompt would page for what users ask."""
_REACH = 2.0


def bounded(values: NDArray[Any], quantiles: Mapping[str, float]) -> NDArray[np.float64]:
    """0 up to the baseline's median, 1 from twice as far beyond it as the baseline's 99.5th percentile lies."""
    median = quantiles["0.5"]
    reach = _REACH * max(quantiles["0.995"] - median, 1e-6)
    return np.clip((np.asarray(values, np.float64) - median) / reach, 0.0, 1.0)
