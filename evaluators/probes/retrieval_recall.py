"""Recall at k of one search, and what may be said of it after so many."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import NamedTuple

import numpy as np

from palegreen.evaluators.probes.retrieval_search import Found, Vector
from palegreen.evaluators.probes.retrieval_vectors import TIE, Nearest, Vectors

CONFIDENCE = 0.99
_VALUES = 501  # that are looked at
_STAKE = 0.5  # most of the capital that one bet may lose


class Overlap(NamedTuple):
    """Of `expected` true neighbours, `hits` were found."""

    hits: int
    expected: int

    @property
    def recall(self) -> float:
        """The share that was found."""
        return self.hits / self.expected


def against_index(approximate: Found, exact: Found, k: int) -> Overlap:
    """Both searches of one index. What scores as the last of the true neighbours is as good as that one.

    Scores that are all the same tell nothing: a constant would make every result a true one.
    """
    true = frozenset(exact.ids[:k])
    if len(set(exact.scores[:k])) > 1 and approximate.scores:
        last = exact.scores[:k][-1]
        rated = zip(approximate.ids[:k], approximate.scores, strict=False)
        true |= {each for each, score in rated if abs(score - last) <= TIE * max(1.0, abs(last))}
    return _overlap(approximate, Nearest(len(frozenset(exact.ids[:k])), true), k)


def against_vectors(approximate: Found, vectors: Vectors, vector: Vector, k: int) -> Overlap:
    """Against all vectors of the index. Raises ValueError for a vector of other dimensions."""
    return _overlap(approximate, vectors.nearest(vector, k), k)


def against_sample(approximate: Found, vectors: Vectors, vector: Vector, k: int) -> Overlap:
    """Against a random part of the vectors, of whatever size.

    The share of the part among what was found is about its share of the index, so that the true k nearest hold about as
    many of it: so many are looked for. Nothing can be said (0 of 0) of a search that found none of the part. Raises
    ValueError for a vector of other dimensions.
    """
    found = approximate.ids[:k]
    known = sum(each in vectors for each in found)
    return _overlap(approximate, vectors.nearest(vector, round(k * known / len(found))), k) if known else Overlap(0, 0)


def bounds(recalls: Sequence[float]) -> tuple[float, float]:
    """An interval for the mean recall of queries like these, of which it misses one in a hundred.

    Betting (Waudby-Smith and Ramdas 2021, "Estimating means of bounded random variables by betting", hedged capital):
    valid for any number of queries and any distribution of their recalls, and narrow where they vary little. A value is
    ruled out once bets against it have earned 2 / 0.01 of their stake; `recalls` are in the order of asking.
    """
    x, against = np.asarray(recalls)[:, None], np.linspace(0, 1, _VALUES)[None, :]
    count = np.arange(1, len(x) + 1)[:, None]
    means = (0.5 + np.cumsum(x, axis=0)) / (count + 1)
    variances = (0.25 + np.cumsum((x - means) ** 2, axis=0)) / (count + 1)
    known = np.vstack([[[0.25]], variances[:-1]])  # before each query, so that bets are made blindly
    earned = log(2 / (1 - CONFIDENCE))
    bets = np.sqrt(2 * earned / (len(x) * known))
    tiny = np.finfo(float).tiny
    above = np.log1p(np.minimum(bets, _STAKE / np.maximum(against, tiny)) * (x - against)).sum(axis=0)
    below = np.log1p(-np.minimum(bets, _STAKE / np.maximum(1 - against, tiny)) * (x - against)).sum(axis=0)
    left, mean = against[0, np.maximum(above, below) < earned], float(x.mean())
    return min(mean, left.min(initial=1.0)), max(mean, left.max(initial=0.0))


def _overlap(approximate: Found, nearest: Nearest, k: int) -> Overlap:
    hits = len(nearest.ids.intersection(approximate.ids[:k]))
    return Overlap(min(hits, nearest.expected), nearest.expected)
