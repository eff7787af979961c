"""Patterns of one's own, from the configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator

import re2

from palegreen.evaluators.config import Pattern
from palegreen.evaluators.redact.finder import Finder, Span, compiled

# Texts are looked at in pieces, so their ends mean nothing; half a character cannot be taken out.
_REFUSED = re.compile(r"\\[AzC]|\(\?[a-zA-Z]*-[a-zA-Z]*m")


def finder(own: Pattern) -> Finder:
    """A finder of one's own pattern; `^` and `$` match at lines. Raises ValueError, one line."""
    if used := _REFUSED.search(own.pattern.replace(r"\\", "")):
        raise ValueError(f"{used.group()} is not supported; allowed: RE2's syntax, with ^ and $ for the ends of a line")
    try:
        compiled(own.pattern)
        pattern = compiled(f"(?m:{own.pattern})")
    except re2.error as error:
        raise ValueError(f"{error.args[0].decode() if isinstance(error.args[0], bytes) else error}") from None
    if pattern.search(b""):
        raise ValueError("the pattern matches the empty text; allowed: one that matches a character at least")

    def find(data: bytes) -> Iterator[Span]:
        for match in pattern.finditer(data):
            if match.start() < match.end():
                yield match.span()

    return Finder(own.name, f"(?m:{own.pattern})", find)
