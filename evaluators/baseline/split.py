"""Three disjoint thirds of the samples: for the regression, for the whitening, and for the calibration.

Neighbours are alike: turns of one conversation, questions of one hour. Were they in different thirds, what is fitted on
one would know the others. So whole sessions stay together, and blocks of successive sessions go to a third as one; of
each three blocks in a row every third gets one, by lot, so that all thirds cover the same days and hours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCKS = 60
"""About as many blocks there are, twenty a third; a session that is longer than a block is cut."""

Index = NDArray[np.intp]


class Thirds(NamedTuple):
    """Numbers of samples, in the order of time in each third; `block` is that of every sample, (n,)."""

    regression: Index
    whitening: Index
    calibration: Index
    block: Index


def thirds(times: Sequence[float], sessions: Sequence[str], seed: int) -> Thirds:
    """Split n samples by time (0 where it is unknown: then their order counts) and session (empty: alone)."""
    order = np.argsort(np.asarray(times), kind="stable")
    size = -(-len(order) // BLOCKS)
    block = np.empty(len(order), np.intp)
    filled = number = 0
    for unit in _units(order, sessions, size):
        block[unit] = number
        filled += len(unit)
        if filled >= size:
            number, filled = number + 1, 0
    draw = np.random.default_rng(seed)
    triples = -(-(int(block.max()) + 1) // 3)
    part = np.concatenate([draw.permutation(3) for _ in range(triples)])[block]
    regression, whitening, calibration = (order[part[order] == third] for third in range(3))
    return Thirds(regression, whitening, calibration, block)


def _units(order: Index, sessions: Sequence[str], size: int) -> list[list[int]]:
    """Samples that stay together, `size` at most, in the order of their first."""
    units: list[list[int]] = []
    open_units: dict[str, list[int]] = {}
    for sample in order.tolist():
        unit = open_units.get(sessions[sample]) if sessions[sample] else None
        if unit is None or len(unit) >= size:
            unit = []
            units.append(unit)
            if sessions[sample]:
                open_units[sessions[sample]] = unit
        unit.append(sample)
    return units
