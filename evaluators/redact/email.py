"""E-mail addresses: plus, IDN and quoted local parts, and `%40` for the at sign as in URLs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from palegreen.evaluators.redact.finder import Finder, Span, after, compiled

# Scripts that put spaces between words: a local part may be in them next to ASCII. In the others (Chinese, Japanese,
# Korean, Thai, ...) the words before an ASCII address belong to the sentence, so they are kept apart.
_SPACED = (
    r"\p{Latin}\p{Cyrillic}\p{Greek}\p{Arabic}\p{Hebrew}\p{Armenian}\p{Georgian}\p{Devanagari}\p{Bengali}\p{Tamil}"
)
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_LOCAL = (
    rf"[{_SPACED}\p{{M}}0-9_+][{_SPACED}\p{{M}}0-9_.%+'&~!#$*^-]*"
    rf"|[{_UNSPACED}\p{{M}}][{_UNSPACED}\p{{M}}0-9_.+-]*"
    r'|"(?:[^"\\\n]|\\.){1,64}"'
)
_LABEL = r"[\pL\pN](?:[\pL\pN\p{M}-]*[\pL\pN\p{M}])?"
_TOP = r"(?:xn--[A-Za-z0-9-]*[A-Za-z0-9]|[A-Za-z]{2,24}|[\pL\p{M}]{2,24})"
_ADDRESS = compiled(rf"(?:{_LOCAL})(?:@|%40)(?:(?:{_LABEL}\.)+{_TOP}|\[(?:IPv6:)?[0-9A-Fa-f.:]{{2,45}}\])")

# What has the shape of an address and is none: name@1.2.3-rc.next (packages), logo@2x.png, git@host:path.
_OTHER = re.compile(rb"(?:@|%40)(?:v?\d+\.\d+[.-]|\d(?:\.\d)?x\.[a-z]{3,4}$)")


def _find(data: bytes) -> Iterator[Span]:
    for match in _ADDRESS.finditer(data):
        start, end = match.span()
        found = data[start:end]
        if _OTHER.search(found) or (found.startswith(b"git@") and after(data, end) in (":", "/")):
            continue
        yield start, end


FINDER = Finder("email", r"\S(?:@|%40)[\S]", _find)
