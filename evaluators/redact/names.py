"""Names and other words from a list, whole, in any case, and with the s of a genitive."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator

import re2

from palegreen.evaluators.redact.finder import Finder, Span, compiled

# Of shorter ones the s makes other words: Ha and has, Doe and does. With an apostrophe the name ends before it; that of
# U+02BC is a letter.
_GENITIVE_LETTERS = 4
_GENITIVE = "(?:\u02bc?s)?"

# Scripts without spaces between words: there, a name has no edges to look for.
_UNSPACED = compiled(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")


def finder(names: Iterable[str]) -> Finder:
    """A finder of `names`. Raises re2.error if there are more than an automaton can hold."""
    spellings = sorted({form for name in names for form in _forms(name)}, key=len, reverse=True)
    listed = [name for name in spellings if not _UNSPACED.search(name)]
    spaced = [_escaped(name) for name in listed]
    long = "|".join(_escaped(name) for name in listed if len(name) >= _GENITIVE_LETTERS)
    short = "|".join(_escaped(name) for name in listed if len(name) < _GENITIVE_LETTERS)
    edged = "|".join(([f"({long}){_GENITIVE}"] if long else []) + ([f"({short})"] if short else []))
    unspaced = [_escaped(name) for name in spellings if _UNSPACED.search(name)]
    alternatives = [rf"(?:^|[^\pL\pM\pN_])(?:{edged})(?:$|[^\pL\pM\pN_])"] if spaced else []
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
