"""Names and other words from a list, whole and in any case."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator

import re2

from palegreen.evaluators.redact.finder import Finder, Span, compiled

# Scripts without spaces between words: there, a name has no edges to look for.
_UNSPACED = compiled(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")


def finder(names: Iterable[str]) -> Finder:
    """A finder of `names`. Raises re2.error if there are more than an automaton can hold."""
    spellings = sorted({form for name in names for form in _forms(name)}, key=len, reverse=True)
    spaced = [_escaped(name) for name in spellings if not _UNSPACED.search(name)]
    unspaced = [_escaped(name) for name in spellings if _UNSPACED.search(name)]
    alternatives = [rf"(?:^|[^\pL\pM\pN_])({'|'.join(spaced)})(?:$|[^\pL\pM\pN_])"] if spaced else []
    alternatives += [f"({'|'.join(unspaced)})"] if unspaced else []
    pattern = compiled("(?i)" + "|".join(alternatives))

    def find(data: bytes) -> Iterator[Span]:
        at = 0
        while match := pattern.search(data, at):
            group = match.lastindex
            yield match.span(group)
            at = match.end(group)  # not the match's end: the blank behind one name is the blank before the next

    return Finder("name", "(?i)" + "|".join(spaced + unspaced), find)


def _forms(name: str) -> set[str]:
    words = " ".join(name.split())
    return {unicodedata.normalize("NFC", words), unicodedata.normalize("NFD", words)} - {""}


def _escaped(name: str) -> str:
    return r"\s+".join(re2.escape(word) for word in name.split())
