"""What finds one kind of thing in a text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import re2

Span = tuple[int, int]
"""Start and end in the bytes looked at."""


class Finder(NamedTuple):
    """`kind` is the metric's label and, in capitals, what stands in the text instead.

    `hint` is an RE2 pattern: a text without a match of it holds nothing of the kind, so `find` need not look.
    `find` gets UTF-8 whose look-alike characters are folded; time and memory linear in its length.
    """

    kind: str
    hint: str
    find: Callable[[bytes], Iterable[Span]]


def options(size: int) -> re2.Options:
    """Options of a pattern of `size` characters: its automaton may take memory in proportion, and at least 8 MiB."""
    chosen = re2.Options()
    chosen.log_errors = False
    chosen.max_mem = (8 << 20) + 1024 * size
    return chosen


def compiled(pattern: str) -> re2._Regexp:
    """`pattern` for bytes of UTF-8. Raises re2.error."""
    return re2.compile(pattern, options(len(pattern)))


def before(data: bytes, at: int, size: int = 1) -> str:
    """Up to `size` characters (fewer where they are long) that stand before `at`."""
    return data[max(0, at - 4 * size) : at].decode("utf-8", "ignore")[-size:]


def after(data: bytes, at: int, size: int = 1) -> str:
    """Up to `size` characters that stand from `at` on."""
    return data[at : at + 4 * size].decode("utf-8", "ignore")[:size]
