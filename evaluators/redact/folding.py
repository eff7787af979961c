"""Texts as the finders see them: look-alike characters as ASCII, and without invisible ones."""

from __future__ import annotations

import re
import unicodedata
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from palegreen.evaluators.redact.finder import Span

_INVISIBLE = "\u00ad\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufeff" + "".join(
    map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A)))
)
_SPACES = "\u00a0\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_DASHES = "\u2010\u2011\u2012\u2013\u2212\ufe63"


def _table() -> dict[str, bytes]:
    table = {chr(code): bytes([code - 0xFEE0]) for code in range(0xFF01, 0xFF5F)}  # full-width ASCII
    for code in range(0x80, 0x10000):
        if (digit := unicodedata.decimal(chr(code), None)) is not None:
            table[chr(code)] = b"%d" % digit
    return table | dict.fromkeys(_SPACES, b" ") | dict.fromkeys(_DASHES, b"-") | dict.fromkeys(_INVISIBLE, b"")


_FOLDS = _table()
_FOLDABLE = re.compile("[" + re.escape("".join(_FOLDS)) + "]")


class Folded(NamedTuple):
    """`data` is searched; a span of it is a span of `source`, the text's own UTF-8.

    `at` and `origin` are where segments begin in `data` and in `source`: in turn a stretch that is the same in both
    and one folded character. Both are empty if nothing was folded.
    """

    data: bytes
    source: bytes
    at: Sequence[int] = ()
    origin: Sequence[int] = ()

    def place(self, span: Span) -> Span:
        """Where a span of `data`, which is not empty, lies in `source`."""
        start, end = span
        if not self.at:
            return span
        first = bisect_right(self.at, start) - 1
        last = bisect_right(self.at, end - 1) - 1
        folded = last % 2  # then the span ends with the whole of that character
        return (
            self.origin[first] + start - self.at[first],
            self.origin[last + 1] if folded else self.origin[last] + end - self.at[last],
        )


def fold(text: str) -> Folded:
    """`text` folded; it must have no lone surrogates."""
    source = text.encode()
    if len(source) == len(text) or not _FOLDABLE.search(text):
        return Folded(source, source)
    data, at, origin = bytearray(), array("I", [0]), array("I", [0])
    here, there, done = 0, 0, 0
    for match in _FOLDABLE.finditer(text):
        same, character = text[done : match.start()].encode(), match.group()
        seen = _FOLDS[character]
        data += same + seen
        here, there = here + len(same), there + len(same)
        at.append(here)
        origin.append(there)
        here, there = here + len(seen), there + len(character.encode())
        at.append(here)
        origin.append(there)
        done = match.end()
    data += text[done:].encode()
    return Folded(bytes(data), source, at, origin)
