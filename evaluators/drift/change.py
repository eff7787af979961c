"""Since when: the most likely beginning of a change among the last vectors, and which of them moved most.

The vectors are projected on the direction in which the last of them lie, and the projections are split where a normal
distribution of mean 0 and variance 1 before and one of any mean and variance after are most likely. A sample is never
projected on a direction that it is part of: in many dimensions it would always seem to lie in it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from palegreen.evaluators.detectors.mewma import BLOCKS

_WINDOWS = (2, 8, 24, 72, 200)
_LEAST = 2  # samples after a change
_NARROWEST = 0.3  # variance of so few is often too small


class Change(NamedTuple):
    """Where it began, and how far each vector lies in its direction, in standard deviations."""

    at: int
    moved: NDArray[np.float64]


def located(vectors: NDArray[Any]) -> Change:
    """The change in vectors (n, d), oldest first, which have mean 0 and variance 1 while nothing has changed."""
    rows = np.asarray(vectors, np.float64)
    n, dimensions = rows.shape
    if n <= _LEAST:
        return Change(0, np.linalg.norm(rows, axis=1))
    blocks = [slice(block.start, min(block.stop, dimensions)) for block in BLOCKS if block.start < dimensions]
    windows = [window for window in _WINDOWS if window < n] or [n]
    window, block = max(((w, b) for w in windows for b in blocks), key=lambda each: _excess(rows, *each))
    at = _split(_projected(rows[:, block], window))
    block = max(blocks, key=lambda each: _excess(rows, n - at, each))
    moved = _projected(rows[:, block], n - at)
    return Change(_split(moved), moved)


def _excess(rows: NDArray[np.float64], window: int, block: slice) -> float:
    """How far the mean of the last vectors is from 0, in standard deviations of what chance gives."""
    mean = rows[-window:, block].mean(axis=0)
    size = len(mean)
    return float((window * mean @ mean - size) / np.sqrt(2 * size))


def _projected(rows: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """On the direction of the last ones, each of which is left out of its own."""
    total = rows[-window:].sum(axis=0)
    directions = np.tile(total, (len(rows), 1))
    directions[-window:] -= rows[-window:]
    lengths = np.linalg.norm(directions, axis=1)
    projected: NDArray[np.float64] = np.einsum("nd,nd->n", rows, directions) / np.maximum(lengths, 1e-9)
    return projected


def _split(scores: NDArray[np.float64]) -> int:
    """The most likely first index after the change."""
    backwards = scores[::-1]
    count = np.arange(1, len(scores) + 1)
    first, second = np.cumsum(backwards), np.cumsum(backwards**2)
    variance = np.maximum(second / count - (first / count) ** 2, _NARROWEST)
    spread = (second - first**2 / count) / variance
    gain = second - count * np.log(variance) - spread
    return len(scores) - (int(np.argmax(gain[_LEAST - 1 :])) + _LEAST)
