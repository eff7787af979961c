"""What an index is asked and what it answers, whichever way it is reached."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Trouble = Literal["timeout", "failed", "unreadable"]


class SearchError(Exception):
    """A search without a result to use; one line that quotes no query. `result` is what it is counted as."""

    def __init__(self, result: Trouble, message: str) -> None:
        super().__init__(message)
        self.result = result


class Question(NamedTuple):
    """What is searched for. `key` tells questions apart; `vector` (dimensions,) may be None, `text` empty."""

    key: str
    text: str
    vector: Vector | None


class Found(NamedTuple):
    """Ids from the best on, their scores if the index told them, and the question's vector if it told that."""

    ids: tuple[str, ...]
    scores: tuple[float, ...] = ()
    vector: Vector | None = None


class Search(Protocol):
    """An index. Called by one thread at a time. Raises SearchError."""

    def __call__(self, question: Question, k: int, exact: bool) -> Found:
        """At most `k` results; the true nearest where `exact`."""


def found(ids: Any, scores: Any = None, vector: Any = None) -> Found:
    """An answer in good order. Raises SearchError (unreadable)."""
    if not _is_list(ids):
        raise _unreadable(f"the ids are {_kind(ids)} instead of a list")
    named = tuple(_id(each) for each in ids)
    rated: tuple[float, ...] = ()
    if scores is not None:
        if not _is_list(scores) or len(scores) != len(named) or not all(_is_number(score) for score in scores):
            raise _unreadable("the scores are not one number for each id")
        rated = tuple(float(score) for score in scores)
    return Found(named, rated, None if vector is None else as_vector(vector))


def as_vector(values: Any) -> Vector:
    """A vector of finite numbers, not all zero. Raises SearchError (unreadable)."""
    if not _is_list(values) or not len(values) or not all(_is_number(value) for value in values):
        raise _unreadable("a vector is not a list of finite numbers")
    vector = np.asarray(values, np.float32)
    if not np.isfinite(vector).all() or not vector.any():
        raise _unreadable("a vector is all zero, or too large for 32 bits")
    return vector


def _is_list(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 1
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _id(value: Any) -> str:
    """Ids are compared as text: an index says 7 where a file says "7"."""
    if isinstance(value, str):
        return value
    if isinstance(value, numbers.Integral) and not isinstance(value, bool | np.bool_):
        return str(int(value))
    raise _unreadable(f"an id is {_kind(value)} instead of a text or a whole number")


def _kind(value: Any) -> str:
    return "missing" if value is None else "an object" if isinstance(value, Mapping) else type(value).__name__


def _unreadable(message: str) -> SearchError:
    return SearchError("unreadable", message)
