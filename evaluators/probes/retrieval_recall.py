"""Recall at k of one search, and what may be said of it after so many."""

from __future__ import annotations

from math import inf, log
from typing import NamedTuple

from palegreen.evaluators.probes.retrieval_search import Found, Vector
from palegreen.evaluators.probes.retrieval_vectors import TIE, Nearest, Vectors

CONFIDENCE = 0.99


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


def bounds(recalls: list[float]) -> tuple[float, float]:
    """An interval for the mean recall of queries like these, of which it misses one in a hundred.

    Chernoff's bound for means of independent values in [0, 1] (Hoeffding 1963, theorem 1): exact for any number of
    queries, however the neighbours of one query hang together; a little wide where recalls vary little.
    """
    mean, allowed = sum(recalls) / len(recalls), log(2 / (1 - CONFIDENCE)) / len(recalls)
    return _furthest(mean, 0.0, allowed), _furthest(mean, 1.0, allowed)


def _furthest(mean: float, end: float, allowed: float) -> float:
    """The value nearest to `end` whose divergence from the mean is allowed."""
    near, far = mean, end
    for _ in range(40):
        middle = (near + far) / 2
        near, far = (middle, far) if _divergence(mean, middle) <= allowed else (near, middle)
    return near


def _divergence(p: float, q: float) -> float:
    """Kullback and Leibler's, of two coins."""
    return _term(p, q) + _term(1 - p, 1 - q)


def _term(p: float, q: float) -> float:
    return 0.0 if p <= 0 else inf if q <= 0 else p * log(p / q)


def _overlap(approximate: Found, nearest: Nearest, k: int) -> Overlap:
    hits = len(nearest.ids.intersection(approximate.ids[:k]))
    return Overlap(min(hits, nearest.expected), nearest.expected)
