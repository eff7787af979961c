"""Limits of the e-detectors: an upper confidence bound of each cluster's rate or mean, plus a tolerance.

A point null explodes on real APIs before anything has changed, hence the tolerance. With probability 1 - delta all
limits of all checks hold together.

Rates: Clopper, Pearson, Biometrika 26, 1934. Means of scores: a bet against each mean, rejected where the wealth
reaches 1 / alpha (Waudby-Smith, Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86, 2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

DELTA = 0.05
_TOLERANCE, _TOLERANCE_SHARE = 0.005, 0.25
_BETS = np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.8])[:, None]
_STEPS = 50  # of bisection


def limits(
    values: NDArray[Any], clusters: NDArray[np.intp], count: int, *, checks: int, delta: float = DELTA
) -> list[float]:
    """The limit of each of `count` clusters, from values in [0, 1] of which only those of scores are between.

    `checks`: how many checks and scores there are in all. A cluster without samples has the limit 1. Raises ValueError.
    """
    values = np.asarray(values, np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("a value of the baseline is not in [0, 1]")
    bound = rate_bound if np.isin(values, (0, 1)).all() else mean_bound
    alpha = delta / (checks * count)
    uppers = (bound(values[clusters == cluster], alpha) for cluster in range(count))
    return [min(1.0, upper + max(_TOLERANCE, _TOLERANCE_SHARE * upper)) for upper in uppers]


def rate_bound(values: NDArray[np.float64], alpha: float) -> float:
    """Clopper-Pearson: the rate at which so few ones have probability alpha. 1 without samples."""
    n, ones = len(values), int(values.sum())
    if ones == n:
        return 1.0
    k = np.arange(ones + 1)
    chosen = np.array([math.lgamma(n + 1) - math.lgamma(each + 1) - math.lgamma(n - each + 1) for each in k])

    def rejected(rate: float) -> bool:
        logs = chosen + k * math.log(rate) + (n - k) * math.log1p(-rate)
        return bool(np.exp(logs).sum() <= alpha)

    return _least(ones / n, rejected)


def mean_bound(values: NDArray[np.float64], alpha: float) -> float:
    """The least mean against which a bet would have won 1 / alpha. 1 without samples."""
    if not len(values):
        return 1.0

    def rejected(mean: float) -> bool:
        wealth = np.log1p(_BETS * (mean - values) / (1 - mean)).sum(axis=1)
        return bool(np.logaddexp.reduce(wealth) - math.log(len(_BETS)) >= -math.log(alpha))

    return _least(float(values.mean()), rejected)


def _least(low: float, rejected: Callable[[float], bool]) -> float:
    """Where the rejection begins between a value and 1."""
    high = 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if middle >= 1 or rejected(middle):
            high = middle
        else:
            low = middle
    return high
