"""Keys, tokens and passwords: by their own shape, or by what stands before them."""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections import Counter
from collections.abc import Iterator

from palegreen.evaluators.redact.finder import Finder, Span, compiled
from palegreen.evaluators.redact.secretshapes import SHAPES

_SHAPED_PATTERN = "|".join(f"(?:{shape.pattern})" for shape in SHAPES)

# RFC 3986 userinfo: scheme://user:password@host; the password goes, and the user with it.
_URL_PATTERN = r"\b[A-Za-z][A-Za-z0-9+.-]{1,30}:\\?/\\?/([^\s/?#\"'<>@:]{0,256}:[^\s\"'<>]{1,512})@[^\s@/\"'<>]"

# RFC 7235 credentials. Words of prose ("bearer of good news") have neither length nor digits.
_HEADER_PATTERN = r"(?i)\b(?:bearer|token|basic|apikey|bot)[ \t]{1,4}([A-Za-z0-9._~+/=-]{8,})"

# curl(1): -u and --user, for a proxy -U and --proxy-user, on the command's line or those that a backslash adds to it.
_CURL_PATTERN = (
    r"\bcurl\b(?:[^\n|&]|&[^\n|&]|\\\r?\n)*?\s(?:-[A-Za-z]{0,8}[uU]\s{1,4}|-[uU]|--(?:proxy-)?user(?:\s{1,4}|=))"
    r"(?:\"([^\":\n]+:[^\"\n]+)|'([^':\n]+:[^'\n]+)|([^\s\"'`:/]+:[^\s\"'`]+))"
)

_PASSWORDS = (
    r"password|passwd|passphrase|_pass|pwd|passwort|kennwort|contraseña|mot[_ ]de[_ ]passe|senha|пароль|密码|密碼|"
    r"パスワード|비밀번호"
)
_KEY = (
    r"(?:api|app|access|account|auth|client|consumer|encryption|master|private|secret|service|session|shared|signing|"
    r"storage)"
    r"[_. -]?(?:key|secret|token)(?:[_-]?id)?|secret|token|credentials?|authorization|apikey"
)
_SIGN = r"(?:(?:is|ist|est|es) ?)?(?:=>|:=|==?|:)|is|ist|est|es|は|是"
_VALUE = rf"[\"'`]?\s{{0,4}}(?:{_SIGN})\s{{0,4}}[\"'`]?([^\s\"'`,;<>]{{4,512}})"
_ASSIGNED_PATTERN = rf"(?i)(?:{_PASSWORDS}|{_KEY}){_VALUE}"

_SHAPED = compiled(_SHAPED_PATTERN)
_URL = compiled(_URL_PATTERN)
_HEADER = compiled(_HEADER_PATTERN)
_CURL = compiled(_CURL_PATTERN)
_ASSIGNED = compiled(_ASSIGNED_PATTERN)
_PASSWORD_WORD = re.compile(rf"(?:{_PASSWORDS})[\"'`]?\s*({_SIGN})(\s*)([\"'`]?)\Z", re.IGNORECASE)
_GUARDED = re.compile(rf"(?:.*[^a-z])?(?:{_PASSWORDS}|client[_-]?secret|secret|private[_-]?key)\Z", re.IGNORECASE)

# Stand-ins for a secret in documentation, templates, code and schemas.
_STAND_IN = re.compile(
    r"[$<{%\[(*•]|.*[({\[]|(?:x{3,}|\.{3}|…|your|my[_-]|example|change[_-]?me|placeholder|redacted|secret\b|password\b|"
    r"true\b|false\b|null\b|none\b|nil\b|undefined\b|string\b|str\b|required\b|optional\b|os\.|process\.|env\.|self\.|"
    r"this\.|config\.|settings\.|request\.|args\.)",
    re.IGNORECASE,
)
_LEAST_ENTROPY = 2.8  # bits a character; random base62 of 16 characters has about 3.7, English words about 2.7


def entropy(value: str) -> float:
    """Shannon entropy of the characters, bits a character."""
    size = len(value)
    return -sum(count / size * math.log2(count / size) for count in Counter(value).values()) if size else 0.0


def guards(key: str) -> bool:
    """Whether a key of JSON, or a label, names a secret, so that all of its value is one."""
    return _GUARDED.match(key[-64:]) is not None


def is_stand_in(value: str) -> bool:
    """Whether a value only stands where a secret would."""
    return len(value) < 4 or _STAND_IN.match(value[:64]) is not None


def _is_random(value: str, least: int) -> bool:
    mixed = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
    return mixed and len(value) >= least and entropy(value[:256]) >= _LEAST_ENTROPY


def _is_basic(value: str) -> bool:
    try:
        return b":" in base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError):
        return False


def _is_assigned(data: bytes, start: int, value: str) -> bool:
    if is_stand_in(value):
        return False
    ahead = data[max(0, start - 96) : start].decode("utf-8", "ignore")
    if word := _PASSWORD_WORD.search(ahead):
        sign, blank, quote = word.groups()
        # In prose ("Password: must have eight characters") a word is no password; with a digit or a sign it is.
        wordlike = value.rstrip(".!?)").isalpha()
        return not wordlike or bool(quote) or (sign == "=" and not blank)
    return _is_random(value, 12)


def _find(data: bytes) -> Iterator[Span]:
    for match in _SHAPED.finditer(data):
        yield match.span()
    for match in _URL.finditer(data):
        if not is_stand_in(match.group(1).decode("utf-8", "ignore").partition(":")[2]):
            yield match.span(1)
    for match in _HEADER.finditer(data):
        value = match.group(1).decode("utf-8", "ignore")
        if _is_random(value, 16) or (match.group()[:5].lower() == b"basic" and _is_basic(value)):
            yield match.span(1)
    for match in _CURL.finditer(data):
        if not is_stand_in(match.group(match.lastindex).decode("utf-8", "ignore").partition(":")[2]):
            yield match.span(match.lastindex)
    for match in _ASSIGNED.finditer(data):
        start = match.start(1)
        value = match.group(1).decode("utf-8", "ignore").rstrip(".!?)}]")
        if _is_assigned(data, start, value):
            yield start, start + len(value.encode())


# The second of them lets values that a key guards (`guards`) be seen, whatever they are.
_HINTS = (
    _SHAPED_PATTERN,
    rf"(?i)(?:{_PASSWORDS}|secret|private[_-]?key)[\"']?\s{{0,4}}[:=]",
    _URL_PATTERN,
    _HEADER_PATTERN,
    _CURL_PATTERN,
)
_HINT = "|".join(f"(?:{pattern})" for pattern in (*_HINTS, _ASSIGNED_PATTERN))

FINDER = Finder("secret", _HINT, _find)
