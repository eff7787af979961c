"""JSON texts, rewritten scalar by scalar so that they stay JSON and keep their layout."""

from __future__ import annotations

import re
from collections.abc import Callable

import orjson

_SCALAR = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?[0-9][0-9.eE+-]*+', re.DOTALL)
_KEY_ENDS = re.compile(r"[ \t\r\n]*+:")
_FIRST = frozenset('{["-0123456789')


def is_json(text: str) -> bool:
    """Whether `text` is a JSON value other than true, false and null."""
    stripped = text.strip(" \t\r\n")
    if not stripped or stripped[0] not in _FIRST:
        return False
    try:
        orjson.loads(stripped)
    except orjson.JSONDecodeError:
        return False
    return True


def rewrite(text: str, scalar: Callable[[str, str, bool], str]) -> str:
    """`text`, which must be JSON, with each string and number as `scalar(key, value, is_key)` gives it.

    `key` is the latest key before the value, as rewritten, or empty. A scalar that does not change keeps its bytes; one
    that does becomes a JSON string, so that a bare number may.
    """
    pieces: list[str] = []
    at, key = 0, ""
    for match in _SCALAR.finditer(text):
        token = match.group()
        quoted = token[0] == '"'
        value: str = orjson.loads(token) if quoted else token
        is_key = quoted and _KEY_ENDS.match(text, match.end()) is not None
        new = scalar(key, value, is_key)
        if is_key:
            key = new
        if new != value:
            pieces += (text[at : match.start()], orjson.dumps(new).decode())
            at = match.end()
    return "".join((*pieces, text[at:])) if pieces else text
